import { createHash } from "node:crypto";
import { modelTag, newId } from "@millrace/shared/redis/ids.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { servedRoutes } from "../support/http/served-routes.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const failing = "throws-on-row";
const roles = ["read", "predict", "inspect", "operate", "admin"] as const;
type Role = (typeof roles)[number];

const readers = ["read", "predict", "inspect", "admin"] as const;
const operators = ["operate", "admin"] as const;
/** The roles that may call each route, with no other scope. `open`: also without a key. */
const table: Record<string, readonly Role[] | "open"> = {
  "GET /": "open",
  "GET /docs": "open",
  "GET /docs/style.css": "open",
  "GET /docs/try.js": "open",
  "GET /openapi.json": "open",
  "GET /health": "open",
  "GET /ready": "open",
  "GET /metrics": "open",
  "GET /schemas/model.json": "open",
  "GET /v2/health/live": "open",
  "GET /v2/health/ready": "open",
  "POST /v1/models/:model/predictions": ["predict"],
  "POST /v1/models/:model/batches": ["predict"],
  "POST /v1/predictions/:id/cancel": ["predict"],
  "POST /v1/predictions/:id/retry": ["predict"],
  "POST /v1/batches/:id/cancel": ["predict"],
  "POST /v1/batches/:id/retry": ["predict"],
  "POST /v1/deliveries/:id/redeliver": ["predict"],
  "POST /predict": ["predict"],
  "POST /predict/batch": ["predict"],
  "POST /predict/intent": ["predict"],
  "POST /predict/anomaly": ["predict"],
  "POST /infer": ["predict"],
  "POST /v2/models/:model/infer": ["predict"],
  "POST /v2/models/:model/versions/:version/infer": ["predict"],
  "GET /v1/predictions": readers,
  "GET /v1/predictions/:id": readers,
  "GET /v1/predictions/:id/events": readers,
  "GET /v1/predictions/:id/deliveries": readers,
  "GET /v1/batches": readers,
  "GET /v1/batches/:id": readers,
  "GET /v1/batches/:id/events": readers,
  "GET /v1/batches/:id/results": readers,
  "GET /v1/batches/:id/deliveries": readers,
  "GET /v1/models": roles,
  "GET /v1/models/:model": roles,
  "GET /models": roles,
  "GET /monitoring/health": roles,
  "GET /monitoring/statistics": roles,
  "GET /v2": roles,
  "GET /v2/models/stats": roles,
  "GET /v2/models/:model": roles,
  "GET /v2/models/:model/config": roles,
  "GET /v2/models/:model/versions/:version/config": roles,
  "GET /v2/models/:model/ready": roles,
  "GET /v2/models/:model/stats": roles,
  "GET /v2/models/:model/versions/:version": roles,
  "GET /v2/models/:model/versions/:version/ready": roles,
  "GET /v2/models/:model/versions/:version/stats": roles,
  "POST /v2/repository/index": roles,
  "GET /v1/failures": roles,
  "GET /v1/failures/redrives": roles,
  "GET /v1/failures/redrives/:id": roles,
  // With another owner's name, for operators only; see below.
  "POST /v1/failures/redrive": ["predict"],
  "POST /v1/failures/redrives/:id/cancel": ["predict", ...operators],
  "PUT /v1/models/:model/traffic": operators,
  "POST /v1/models/:model/rollback": operators,
  "POST /v1/models/:model/load": operators,
  "POST /v1/models/:model/unload": operators,
  "POST /v2/repository/models/:model/load": operators,
  "POST /v2/repository/models/:model/unload": operators,
  "POST /admin/keys": operators,
  "POST /admin/keys/:key/rotate": operators,
  "POST /admin/keys/:key/revoke": operators,
  "GET /admin/keys": ["inspect", ...operators],
  // The queue page has no routes of its own.
  "GET /admin/queues": ["inspect", "admin"],
  "GET /admin/queues/api/queues": ["inspect", "admin"],
};

describe("scopes", () => {
  let stack: TestStack;
  const keyOf = (name: string) => ({ as: null, headers: { authorization: `Bearer ${name}-key` } });
  const entries = [
    ...roles.map((role) => [role, role] as const),
    ["alice", "predict"] as const,
    ["bob", "predict"] as const,
    ["bound", `inspect@${failing}`] as const,
  ];

  beforeAll(async () => {
    const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
    stack = await TestStack.start({
      models: [tree, failing],
      env: { API_KEYS: entries.map(([name, scope]) => `${name}:${sha256(`${name}-key`)}:${scope}`).join(",") },
    });
  });
  afterAll(() => stack.close());

  test("the table has every route, and no other", () => {
    const routes = servedRoutes().map(({ method, path }) => `${method} ${path}`);
    const named = Object.keys(table).filter((route) => !route.includes("/admin/queues"));
    expect(named.sort()).toEqual(routes.sort());
  });

  test.each(Object.entries(table))("%s is for the keys of its scopes alone", async (route, allowed) => {
    const [method = "", template = ""] = route.split(" ");
    const id = newId(modelTag(tree));
    const path = template
      .replace(":id", id)
      .replace(":model", "nobody")
      .replace(":version", "1")
      .replace(":key", "key_nothing");
    const json = method === "GET" ? {} : { json: {} };
    const statusAs = async (options: object) => (await stack.call(method, path, { ...json, ...options })).status;
    const refusals = Object.fromEntries(
      await Promise.all(
        roles.map(async (role) => [role, [401, 403].includes(await statusAs(keyOf(role))) ? "refused" : "passed"]),
      ),
    );
    const isPassed = (role: Role) => allowed === "open" || allowed.includes(role);
    expect(refusals).toEqual(Object.fromEntries(roles.map((role) => [role, isPassed(role) ? "passed" : "refused"])));
    expect((await statusAs({ as: null })) === 401).toBe(allowed !== "open");
  });

  test("a key that may inspect reads every owner's data, each read on record; no other key does", async () => {
    const { id } = await stack.submit(tree, flow(1), {}, keyOf("alice"));
    const batch = (await stack.post(`/v1/models/${tree}/batches`, { inputs: [flow(2)] }, keyOf("alice"))).body;
    await stack.final(id, keyOf("alice"));
    await stack.get(`/v1/batches/${batch.id}?wait=20`, keyOf("alice"));
    const paths = [
      `/v1/predictions/${id}`,
      `/v1/predictions/${id}/deliveries`,
      `/v1/batches/${batch.id}`,
      `/v1/batches/${batch.id}/results`,
      `/v1/batches/${batch.id}/deliveries`,
      "/v1/predictions?owner=alice",
      "/v1/batches?owner=alice",
      "/v1/failures?owner=alice",
      "/v1/failures/redrives?owner=alice",
    ];
    for (const path of paths) {
      const own = await stack.get(path.replace("?owner=alice", ""), keyOf("alice"));
      expect(own.status, path).toBe(200);
      for (const role of ["inspect", "admin"] as const) {
        const { body, status } = await stack.get(path, keyOf(role));
        expect([status, body], `${path} as ${role}`).toEqual([200, own.body]);
      }
      // To them there is no such parameter, and no such id.
      const denied = path.includes("owner=") ? 400 : 404;
      for (const name of ["bob", "read"]) expect((await stack.get(path, keyOf(name))).status, path).toBe(denied);
      // Bound to another model: unknown as to anybody, or a list of that model's alone.
      const bound = await stack.get(path, keyOf("bound"));
      if (path.includes("owner=")) expect(bound.body.data).toEqual([]);
      else expect(bound.status).toBe(403);
    }
    const events = await stack.get(`/v1/predictions/${id}/events`, keyOf("inspect"));
    expect(events.body).toContain(id);
    // A list without a name stays the caller's own.
    expect((await stack.get("/v1/predictions", keyOf("inspect"))).body.data).toEqual([]);
    await eventually(() => {
      const lines = stack.logged("other owner's data read");
      const recorded = new Set(lines.map((line) => `${line.owner} ${line.of} ${line.path}`));
      for (const path of paths) {
        for (const role of ["inspect", "admin"]) expect(recorded).toContain(`${role} alice ${path.split("?")[0]}`);
      }
      expect(
        lines.every(({ audit, request_id, status }) => audit === true && request_id !== "" && status === 200),
      ).toBe(true);
    });
    expect(stack.logged("data read")).toEqual([]);
  });

  test("a key that may inspect changes nothing of anybody's", async () => {
    const { id } = await stack.submit(tree, flow(3), { delay_ms: 600_000 }, keyOf("alice"));
    for (const role of ["inspect", "operate", "admin"]) {
      const options = keyOf(role);
      expect((await stack.post(`/v1/predictions/${id}/cancel`, {}, options)).status).toBe(403);
    }
    expect((await stack.post(`/v1/predictions/${id}/cancel`, {}, keyOf("bob"))).status).toBe(404);
    expect((await stack.get(`/v1/predictions/${id}`, keyOf("alice"))).body.status).toBe("scheduled");
  });

  test("what is looked at on the queue page is on record once a minute, as a read of all owners' data", async () => {
    for (let times = 0; times < 3; times++) await stack.get("/admin/queues/api/queues?page=2", keyOf("inspect"));
    await eventually(() => {
      const looks = stack
        .logged("other owner's data read")
        .filter(({ of, owner }) => of === "*" && owner === "inspect");
      expect(looks.length).toBeGreaterThanOrEqual(1);
      expect(looks.length).toBeLessThanOrEqual(2);
    });
  });

  test("an operator redrives the failures of another owner or of all, and reads none of them", async () => {
    const failed: string[] = [];
    for (const name of ["alice", "bob"]) {
      const { body } = await stack.predict(failing, { x: [[1_000_000]] }, {}, keyOf(name));
      expect(body.status).toBe("failed");
      failed.push(body.id);
    }
    const operator = keyOf("operate");
    expect((await stack.get("/v1/failures?owner=alice", operator)).body.data).toMatchObject([{ count: 1 }]);
    expect((await stack.get(`/v1/predictions/${failed[0]}`, operator)).status).toBe(403);
    const asked = { owner: "alice" };
    assertProblem(await stack.post("/v1/failures/redrive", asked, keyOf("bob")), 422, "invalid_request");
    assertProblem(await stack.post("/v1/failures/redrive", asked, keyOf("inspect")), 403, "forbidden");
    assertProblem(await stack.post("/v1/failures/redrive", {}, operator), 403, "forbidden");
    const one = await stack.post("/v1/failures/redrive", { owner: "alice" }, operator);
    expect([one.status, one.body.counts.total]).toEqual([202, 1]);
    const ended = await stack.get(`/v1/failures/redrives/${one.body.id}?wait=20`, operator);
    expect(ended.body).toMatchObject({ status: "succeeded", counts: { redriven: 1 } });
    expect((await stack.get(`/v1/failures/redrives/${one.body.id}`, keyOf("bob"))).status).toBe(404);
    expect((await stack.get(`/v1/failures/redrives/${one.body.id}`, keyOf("alice"))).status).toBe(200);
    const retried = (await stack.get("/v1/predictions?owner=alice", keyOf("inspect"))).body.data;
    expect(retried.map(({ retry_of }: { retry_of: string | null }) => retry_of)).toContain(failed[0]);
    // Owners are known once what is stored for them was counted, which is done once a second.
    await eventually(async () => {
      const all = await stack.post("/v1/failures/redrive", { owner: "*", rate: 1000 }, operator);
      expect(all.status).toBe(202);
      const retries = (await stack.get("/v1/predictions?owner=bob", keyOf("inspect"))).body.data;
      expect(retries.map(({ retry_of }: { retry_of: string | null }) => retry_of)).toContain(failed[1]);
    });
    await eventually(() => {
      const acts = stack.logged("admin act").filter(({ path }) => path === "/v1/failures/redrive");
      expect(acts).toContainEqual(expect.objectContaining({ owner: "operate", status: 202 }));
    });
  });

  test("an operator makes and ends keys, but none that reads everything, and none of an admin's", async () => {
    const operator = keyOf("operate");
    const made = await stack.post("/admin/keys", { owner: "new", scopes: ["predict", "operate"] }, operator);
    expect(made.status).toBe(201);
    const reading = await stack.post("/admin/keys", { owner: "new", scopes: ["inspect"] }, keyOf("admin"));
    for (const scopes of [["inspect"], ["admin"], [`inspect@${tree}`], ["predict", "admin"]]) {
      assertProblem(await stack.post("/admin/keys", { owner: "x", scopes }, operator), 403, "forbidden");
    }
    for (const act of ["rotate", "revoke"]) {
      assertProblem(await stack.post(`/admin/keys/${reading.body.id}/${act}`, {}, operator), 403, "forbidden");
    }
    expect((await stack.post(`/admin/keys/${made.body.id}/rotate`, {}, operator)).status).toBe(201);
    expect((await stack.post(`/admin/keys/${made.body.id}/revoke`, {}, operator)).status).toBe(200);
    expect((await stack.post(`/admin/keys/${reading.body.id}/revoke`, {}, keyOf("admin"))).status).toBe(200);
    expect(stack.logged("key made")).toContainEqual(
      expect.objectContaining({ audit: true, owner: "operate", for: "new", key_id: made.body.id }),
    );
  });
});
