import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { parseApiKeys, readGrants } from "@millrace/shared/access/api-keys.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { flow } from "../support/stack/flows.js";
import { keys as ownKeys, TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const cli = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));
const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

describe("keys", () => {
  let stack: TestStack;
  let dir: string;
  let file: string;
  const as = (key: string, url = stack.url) => ({ as: null, headers: { authorization: `Bearer ${key}` }, url });
  const urls = () => stack.apis.map(({ url }) => url);
  const statusOn = async (url: string, key: string) => (await stack.get("/v1/models", as(key, url))).status;
  const everywhere = async (key: string) => Promise.all(urls().map((url) => statusOn(url, key)));
  const make = async (body: object) => (await stack.post("/admin/keys", body, { as: "admin" })).body;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-keys-"));
    file = join(dir, "keys");
    await writeFile(file, `carol:${sha256("carol-1")}\n`);
    stack = await TestStack.start({ models: [tree, "echo-float32"], apis: 2, env: { API_KEYS_FILE: file } });
  });
  afterAll(async () => {
    await stack.close();
    await rm(dir, { recursive: true });
  });

  test("a key made by an admin is shown once, stored as a hash, and valid on every API", async () => {
    const made = await stack.post("/admin/keys", { owner: "dora", scopes: ["read"] }, { as: "admin" });
    expect(made.status).toBe(201);
    expect(made.body).toMatchObject({ object: "key", owner: "dora", scopes: ["read"], expires_at: null });
    const { id, key } = made.body;
    await eventually(async () => expect(await everywhere(key)).toEqual([200, 200]));
    assertProblem(await stack.post(`/v1/models/${tree}/predictions`, {}, as(key)), 403, "forbidden");
    const list = await stack.get("/admin/keys", { as: "admin" });
    expect(list.body.data.map((entry: { id: string }) => entry.id)).toContain(id);
    expect(JSON.stringify(list.body)).not.toContain(key);
    expect(JSON.stringify(await stack.redis.hgetall(`${stack.prefix}:api-keys`))).not.toContain(key);
    expect(stack.log.map((line) => JSON.stringify(line)).join()).not.toContain(key);
  });

  test("a revoked key is refused by every API at once", async () => {
    const { id, key } = await make({ owner: "erin" });
    await eventually(async () => expect(await everywhere(key)).toEqual([200, 200]));
    expect((await stack.post(`/admin/keys/${id}/revoke`, {}, { as: "admin" })).body).toMatchObject({ revoked: true });
    await eventually(async () => expect(await everywhere(key)).toEqual([401, 401]), 2000);
    assertProblem(await stack.post(`/admin/keys/${id}/revoke`, {}, { as: "admin" }), 404, "not_found");
  });

  test("a rotated key stays valid for the overlap, beside the new key of the same owner", async () => {
    const old = await make({ owner: "fred" });
    await eventually(async () => expect(await everywhere(old.key)).toEqual([200, 200]));
    const { id } = await stack.submit(tree, flow(1), {}, as(old.key));
    const rotated = await stack.post(`/admin/keys/${old.id}/rotate`, { overlap_ms: 2000 }, { as: "admin" });
    expect(rotated.body).toMatchObject({ owner: "fred", scopes: ["predict"] });
    await eventually(async () => expect(await everywhere(rotated.body.key)).toEqual([200, 200]));
    expect((await stack.get(`/v1/predictions/${id}`, as(rotated.body.key))).status).toBe(200);
    await eventually(async () => expect(await everywhere(old.key)).toEqual([401, 401]));
    expect(await everywhere(rotated.body.key)).toEqual([200, 200]);
  });

  test("an expired key is refused", async () => {
    const before = Date.now();
    const { expires_at, key } = await make({ owner: "gina", expires_in_ms: 1500 });
    expect(Date.parse(expires_at)).toBeGreaterThanOrEqual(before + 1500);
    expect(Date.parse(expires_at)).toBeLessThanOrEqual(Date.now() + 1500);
    await eventually(async () => expect(await everywhere(key)).toEqual([401, 401]));
  });

  test("changes of the key file take effect; an unreadable file leaves the keys unchanged", async () => {
    expect(await everywhere("carol-1")).toEqual([200, 200]);
    await writeFile(file, `carol:${sha256("carol-2")}\n`);
    await eventually(async () => expect(await everywhere("carol-2")).toEqual([200, 200]));
    await eventually(async () => expect(await everywhere("carol-1")).toEqual([401, 401]));
    await writeFile(file, "carol:no-hash\n");
    await eventually(() => {
      const warnings = stack.logged("API_KEYS_FILE cannot be read; the keys stay as they were");
      expect(warnings.length).toBeGreaterThanOrEqual(2);
    });
    expect(await everywhere("carol-2")).toEqual([200, 200]);
    await writeFile(file, `carol:${sha256("carol-2")}\n`);
  });

  test("a scope bound to a model applies to that model only", async () => {
    const { key } = await make({ owner: "hana", scopes: ["predict@intrusion-*"] });
    const bound = as(key);
    await eventually(async () => expect(await everywhere(key)).toEqual([200, 200]));
    const wide = await make({ owner: "hana" });
    await eventually(async () => expect(await everywhere(wide.key)).toEqual([200, 200]));
    const other = await stack.submit("echo-float32", { x: [[1, 2, 3]] }, {}, as(wide.key));
    const { id } = await stack.submit(tree, flow(2), {}, bound);
    expect((await stack.get(`/v1/predictions/${id}`, bound)).status).toBe(200);
    const refused: [string, string, unknown?][] = [
      ["POST", "/v1/models/echo-float32/predictions", { input: { x: [[1, 2, 3]] } }],
      ["POST", "/v1/models/echo-float32/batches", { inputs: [{ x: [[1, 2, 3]] }] }],
      ["GET", "/v1/models/echo-float32"],
      ["GET", `/v1/predictions/${other.id}`],
      ["POST", `/v1/predictions/${other.id}/cancel`, {}],
      ["GET", "/admin/keys"],
    ];
    for (const [method, path, json] of refused) {
      assertProblem(
        await stack.call(method, path, { ...bound, ...(json !== undefined && { json }) }),
        403,
        "forbidden",
      );
    }
    const models = (await stack.get("/v1/models", bound)).body.data.map(({ name }: { name: string }) => name);
    expect(models).toEqual([tree]);
    const seen = (await stack.get("/v1/predictions", bound)).body.data.map((entry: { id: string }) => entry.id);
    expect(seen).toEqual([id]);
    const bindAdmin = await make({ owner: "ivan", scopes: [`admin@${tree}`, "predict"] });
    await eventually(async () => expect(await everywhere(bindAdmin.key)).toEqual([200, 200]));
    for (const path of ["/admin/keys", "/admin/queues", "/admin/queues/api/queues"]) {
      assertProblem(await stack.get(path, as(bindAdmin.key)), 403, "forbidden");
    }
    const foreign = await make({ owner: "judy" });
    assertProblem(await stack.post(`/admin/keys/${foreign.id}/revoke`, {}, as(bindAdmin.key)), 403, "forbidden");
  });

  test("a caller creates, lists and revokes no keys; each of these acts and each refused key is audited", async () => {
    for (const owner of ["alice", "reader"] as const) {
      assertProblem(await stack.get("/admin/keys", { as: owner }), 403, "forbidden");
      assertProblem(
        await stack.post("/admin/keys", { owner: "x", scopes: ["admin"] }, { as: owner }),
        403,
        "forbidden",
      );
    }
    await stack.get("/v1/models", {
      ...as("no-such-key"),
      headers: { authorization: "Bearer no-such-key", "x-request-id": "audit-1" },
    });
    await eventually(() => {
      const [line] = stack.logged("key refused").filter(({ request_id }) => request_id === "audit-1");
      expect(line).toMatchObject({
        audit: true,
        reason: "unknown key",
        method: "GET",
        path: "/v1/models",
        address: "127.0.0.1",
      });
      expect(stack.logged("key refused")).toContainEqual(
        expect.objectContaining({ owner: "alice", reason: "no scope operate" }),
      );
      const acts = stack.logged("admin act").filter(({ path }) => path === "/admin/keys");
      expect(acts).toContainEqual(
        expect.objectContaining({ audit: true, owner: "admin", method: "POST", status: 201 }),
      );
    });
    expect(JSON.stringify(stack.log)).not.toContain("no-such-key");
  });

  test.each<[string, object, string]>([
    ["an invalid owner", { owner: "a b" }, "/owner"],
    ["no owner", {}, "/owner"],
    ["an unknown scope", { owner: "x", scopes: ["root"] }, "/scopes"],
    ["a scope bound to a path", { owner: "x", scopes: ["read@../x"] }, "/scopes"],
    ["no scope at all", { owner: "x", scopes: [] }, "/scopes"],
    ["an expiry in the past", { owner: "x", expires_in_ms: -1 }, "/expires_in_ms"],
    ["a key chosen by the caller", { owner: "x", key: "mine" }, "/key"],
  ])("no key is made for %s", async (_what, body, pointer) => {
    const problem = assertProblem(await stack.post("/admin/keys", body, { as: "admin" }), 422, "invalid_request");
    expect(problem.errors.map((error: { pointer: string }) => error.pointer)).toEqual([pointer]);
  });

  test("keys made, rotated and revoked on the command line take effect on every API at once", async () => {
    const env = { PATH: process.env.PATH, REDIS_URL: stack.redisUrl, REDIS_KEY_PREFIX: stack.prefix };
    const run = async (...args: string[]) =>
      (await promisify(execFile)(process.execPath, [cli, "keys", ...args], { env })).stdout;
    const idIn = (text: string) => /key_\w+/.exec(text)?.[0] as string;
    const keyIn = (text: string) => /^mr_\S+$/m.exec(text)?.[0] as string;
    const made = await run("make", "kate", "--scopes", "read+predict@intrusion-*", "--expires-days", "1");
    await eventually(async () => expect(await everywhere(keyIn(made))).toEqual([200, 200]));
    const listed = await run("list");
    expect(listed).toContain(`${idIn(made)}  kate  read+predict@intrusion-*`);
    expect(listed).not.toContain(keyIn(made));
    const rotated = await run("rotate", idIn(made), "--overlap-hours", "0");
    await eventually(async () => expect(await everywhere(keyIn(made))).toEqual([401, 401]));
    expect(await everywhere(keyIn(rotated))).toEqual([200, 200]);
    await run("revoke", idIn(rotated));
    await eventually(async () => expect(await everywhere(keyIn(rotated))).toEqual([401, 401]), 2000);
    await expect(run("revoke", "key_nothing")).rejects.toThrow(/no key key_nothing/);
    await expect(run("make", "a b")).rejects.toThrow(/An owner has/);
  });

  test("the last use of a key is stored eventually, without a write for each request", async () => {
    const { id, key } = await make({ owner: "lena" });
    await eventually(async () => expect(await everywhere(key)).toEqual([200, 200]));
    const api = await stack.startApi();
    expect(await statusOn(api.url, key)).toBe(200);
    expect(await stack.redis.hget(`${stack.prefix}:api-keys-used`, id)).toBeNull();
    await api.stop();
    stack.apis.pop();
    const entry = (await stack.get("/admin/keys", { as: "admin" })).body.data.find(
      (found: { id: string }) => found.id === id,
    );
    expect(Date.parse(entry.last_used_at)).toBeGreaterThan(Date.now() - 60_000);
    expect(Object.values(ownKeys)).not.toContain(key);
  });
});

describe("grants", () => {
  test("a scope for all models overrides bound ones, and predict includes read for the same models", () => {
    expect(readGrants(["predict@a-*", "predict@b"])).toEqual({
      scopes: new Set(["predict", "read"]),
      models: new Map([
        ["predict", ["a-*", "b"]],
        ["read", ["a-*", "b"]],
      ]),
    });
    expect(readGrants(["predict@a", "read"])?.models).toEqual(new Map([["predict", ["a"]]]));
    expect(readGrants(["predict@a", "predict"])).toEqual({ scopes: new Set(["predict", "read"]) });
    for (const bad of ["", "root", "predict@", "predict@/x", "@a", "predict@A"]) expect(readGrants([bad])).toBeNull();
    expect(parseApiKeys(`a:${"0".repeat(64)}:predict@x-*+read`, "K")[0]?.models).toEqual(
      new Map([["predict", ["x-*"]]]),
    );
  });

  test.each([
    ["abc", "abc", true],
    ["abc", "a*", true],
    ["abc", "*c", true],
    ["abc", "*", true],
    ["abc", "a*c", true],
    ["abc", "a*b*c", true],
    ["abcabc", "a*bc", true],
    ["ab", "ab*b", false],
    ["abc", "ab", false],
    ["abc", "a*d", false],
    ["a.c", "a?c", false],
    ["xabc", "a*", false],
  ])("%s, glob %s: %s", (name, glob, fits) => {
    expect(fitsGlob(name, [glob])).toBe(fits);
  });
});
