import { newId } from "@millrace/shared/redis/ids.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { startOwnRedis } from "../support/redis/private-redis.js";
import { type Owner, TestStack } from "../support/stack/stack.js";

const models = ["echo-int32", "throws-on-row", "slow"];
const row = { "echo-int32": [[1, 2, 3]], "throws-on-row": [[99]], slow: [[1]] } as Record<string, number[][]>;

describe("the list of predictions", () => {
  let redis: Awaited<ReturnType<typeof startOwnRedis>>;
  let stack: TestStack;
  const list = (query = "", as: Owner = "alice") => stack.get(`/v1/predictions${query && `?${query}`}`, { as });
  const make = async (count: number, as: Owner = "alice", rest: object = {}): Promise<string[]> => {
    const ids: string[] = [];
    for (let i = 0; i < count; i++) {
      const model = models[i % 3] as string;
      ids.push((await stack.submit(model, { x: row[model] }, { ...rest }, { as })).id);
    }
    return ids;
  };
  /** All pages; calls `between` after each. */
  const allPages = async (query: string, as: Owner, between: () => Promise<unknown> = async () => undefined) => {
    const found: { id: string; model: string; status: string; created_at: string }[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const { body } = await list(`${query}${cursor && `&cursor=${cursor}`}`, as);
      found.push(...body.data);
      cursor = body.next_cursor;
      await between();
    }
    return found;
  };

  beforeAll(async () => {
    redis = await startOwnRedis();
    stack = await TestStack.start({ models, redisUrl: redis.url });
  });
  afterAll(async () => {
    await stack.close();
    await redis.close();
  });

  test("has the caller's own predictions of every model, newest first", async () => {
    const ids = await make(12);
    const bobs = await make(3, "bob");
    await Promise.all(ids.map((id) => stack.final(id)));
    const { body, status } = await list();
    expect(status).toBe(200);
    expect(body.next_cursor).toBeNull();
    expect(new Set(body.data.map(({ id }: { id: string }) => id))).toEqual(new Set(ids));
    const times = body.data.map(({ created_at }: { created_at: string }) => created_at);
    expect(times).toEqual([...times].sort().reverse());
    for (const shown of body.data) expect(shown).toEqual((await stack.get(`/v1/predictions/${shown.id}`)).body);
    expect(new Set((await list("", "bob")).body.data.map(({ id }: { id: string }) => id))).toEqual(new Set(bobs));
  });

  test("shows every old prediction exactly once, although new ones arrive between its pages", async () => {
    const [sooner, later] = [await make(25, "admin"), await Promise.all([make(20, "admin"), make(20, "admin")])];
    const old = [...sooner, ...later.flat()];
    const first = (await list("limit=7", "admin")).body.data;
    const found = await allPages("limit=7", "admin", () => make(3, "admin"));
    expect(found.slice(0, 7).map(({ id }) => id)).toEqual(first.map(({ id }: { id: string }) => id));
    expect(found.map(({ id }) => id).sort()).toEqual(old.sort());
  });

  test("can be filtered by model and status", async () => {
    const scheduled = await make(3, "alice", { delay_ms: 600_000 });
    const all = await allPages("limit=100", "alice");
    for (const [query, fits] of [
      ["model=slow", ({ model }) => model === "slow"],
      ["status=succeeded", ({ status }) => status === "succeeded"],
      ["status=scheduled", ({ status }) => status === "scheduled"],
      ["status=failed&model=throws-on-row", ({ status }) => status === "failed"],
      ["status=failed&model=slow", () => false],
    ] as [string, (shown: { model: string; status: string }) => boolean][]) {
      const wanted = all.filter(fits).map(({ id }) => id);
      expect(await allPages(`${query}&limit=2`, "alice").then((found) => found.map(({ id }) => id)), query).toEqual(
        wanted,
      );
    }
    expect(all.filter(({ status }) => status === "scheduled")).toHaveLength(scheduled.length);
    expect(all.filter(({ status }) => status === "failed").length).toBeGreaterThan(0);
    for (const id of scheduled) await stack.call("POST", `/v1/predictions/${id}/cancel`);
  });

  test("refuses invalid parameters", async () => {
    for (const bad of ["0", "101", "-1", "1.5", "abc", "", "1e1", "%201"].map((limit) => `limit=${limit}`)) {
      expect((await list(bad)).status, bad).toBe(400);
    }
    for (const bad of ["cursor=", "cursor=x", "cursor=MTIzLmFiYw", "status=done", "status=", "owner=bob"]) {
      const { body, status } = await list(bad);
      expect([status, body.code], bad).toEqual([400, "bad_query"]);
    }
    expect((await list("model=never-announced")).status).toBe(404);
    expect((await list("limit=100")).status).toBe(200);
    expect((await list("limit=1")).body.data).toHaveLength(1);
  });

  test("costs the same with 50,000 entries as with few", async () => {
    const calls = async () => {
      const text = await stack.redis.info("commandstats");
      return new Map(Array.from(text.matchAll(/cmdstat_(\S+?):calls=(\d+)/g), ([, name, n]) => [name, Number(n)]));
    };
    const cost = async (query: string) => {
      const before = await calls();
      const { body, status } = await list(query, "bob");
      expect(status).toBe(200);
      const after = await calls();
      const sent = (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0);
      for (const scan of ["scan", "keys", "zscan", "sscan", "hscan", "smembers", "zrange", "zrevrange", "sort"]) {
        expect(sent(scan), scan).toBe(0);
      }
      return { body, ranges: sent("zrevrangebyscore"), reads: sent("get") };
    };
    await stack.workers[0]?.stop();
    await make(30, "bob");
    const before = await cost("limit=10");
    // Older entries whose predictions have expired, as months of use would leave.
    const { owned, tag } = modelKeys(stack.prefix, "slow");
    const old = Date.now() - 3_600_000;
    for (let from = 0; from < 50_000; from += 5000) {
      const members = Array.from({ length: 5000 }, (_, i) => [old - from - i, newId(tag)]);
      await stack.redis.zadd(owned("bob"), ...members.flat());
    }
    const after = await cost("limit=10");
    expect(after.ranges).toBe(before.ranges);
    // The model directory also reads from time to time.
    expect(after.reads).toBeLessThanOrEqual(before.reads + 10);
    // The page after all readable predictions.
    const { next_cursor } = (await cost("limit=100")).body;
    const deep = await cost(`limit=10&cursor=${next_cursor}`);
    expect(deep.ranges).toBeLessThanOrEqual(200);
    expect(deep.reads).toBeLessThanOrEqual(1100);
    expect(deep.body.next_cursor).not.toBeNull();
  });
});

test("the list drops predictions after their result time, but not waiting ones", async () => {
  const stack = await TestStack.start({ models: ["slow"], env: { RESULT_TTL_SECONDS: "1" } });
  try {
    const ended = (await stack.predict("slow", { x: [[1]] })).body;
    const waits = await stack.submit("slow", { x: [[1]] }, { delay_ms: 600_000 });
    const ids = async () => (await stack.get("/v1/predictions")).body.data.map(({ id }: { id: string }) => id);
    expect(await ids()).toContain(ended.id);
    await eventually(async () => {
      const { body, status } = await stack.get(`/v1/predictions/${ended.id}`);
      expect([status, body.status]).toEqual([404, 404]);
    }, 5000);
    await eventually(async () => expect(await ids()).toEqual([waits.id]));
  } finally {
    await stack.close();
  }
});
