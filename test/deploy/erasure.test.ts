import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf } from "../support/http/receiver.js";
import { root } from "../support/run/tools.js";
import { TestStack } from "../support/stack/stack.js";

const page = readFileSync(join(root, "docs/data.md"), "utf8");
const note = "to-be-forgotten";

describe("erasure as docs/data.md describes it", () => {
  let stack: TestStack;
  let receiver: Receiver;
  const folder = mkdtempSync(join(tmpdir(), "millrace-erasure-"));

  beforeAll(async () => {
    receiver = await Receiver.start(() => ({ status: 200, body: note }));
    stack = await TestStack.start({
      models: ["throws-on-row"],
      env: { WEBHOOK_SECRET: secretOf(5), WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
    // Every redis-cli of the recipe, also one that xargs starts, calls the Redis of the tests.
    const wrapper = `#!/bin/bash\nPATH="\${PATH#*:}" exec redis-cli -u "${stack.redisUrl}" "$@"\n`;
    writeFileSync(join(folder, "redis-cli"), wrapper);
    chmodSync(join(folder, "redis-cli"), 0o755);
  });
  afterAll(async () => {
    await stack?.close();
    await receiver?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Keys that hold the note, or have the text in their names. */
  async function keysWith(text: string): Promise<string[]> {
    const redis = stack.redis as Redis;
    const found: string[] = [];
    for await (const keys of redis.scanStream({ match: `${stack.prefix}:*`, count: 1000 })) {
      for (const key of keys as string[]) {
        const held = await contents(redis, key);
        if (held.includes(note) || key.includes(text)) found.push(key);
      }
    }
    return found;
  }

  test("the recipe leaves nothing of a failed prediction and its webhook, and takes nothing of others", async () => {
    const hook = { webhook: receiver.url("/told"), metadata: { note }, cache: false };
    const other = (await stack.predict("throws-on-row", { x: [[1]] }, { cache: false })).body;
    const { id } = await stack.submit("throws-on-row", { x: [[97]] }, hook);
    await stack.final(id);
    await receiver.received("/told");
    await eventually(async () => expect(await attemptsOf(id)).toBe(1));
    // Result, job of the queue page, delivery, its body and its tries.
    expect((await keysWith(id)).length).toBeGreaterThan(3);
    expect(page).toContain("```bash\n");
    const recipe = (/```bash\n([\s\S]*?)```/.exec(page)?.[1] ?? "").replaceAll('"mr:', `"${stack.prefix}:`);
    expect(recipe).toContain(stack.prefix);
    const env = { PATH: `${folder}:${process.env.PATH}`, ID: id };
    const child = spawn("bash", ["-euc", recipe], { env, stdio: ["ignore", "ignore", "pipe"] });
    let faults = "";
    child.stderr.on("data", (bytes: Buffer) => (faults += bytes));
    const [code] = await once(child, "close");
    expect({ code, faults: faults.replaceAll(/^Warning: .*\n/gm, "") }).toEqual({ code: 0, faults: "" });
    expect(await keysWith(id)).toEqual([]);
    expect((await stack.get(`/v1/predictions/${id}`)).status).toBe(404);
    const { data } = (await stack.get("/v1/predictions?model=throws-on-row")).body;
    expect(data.map((each: { id: string }) => each.id)).toEqual([other.id]);
    expect((await stack.predict("throws-on-row", { x: [[2]] })).body.status).toBe("succeeded");
  });

  test("no path deletes data, as long as the page says so", async () => {
    const { id } = (await stack.predict("throws-on-row", { x: [[1]] })).body;
    const statusOf = async (path: string) => (await stack.call("DELETE", path, { as: "admin" })).status;
    expect([await statusOf(`/v1/predictions/${id}`), await statusOf("/v1/owners/alice/data")]).toEqual([405, 404]);
    expect((await stack.get(`/v1/predictions/${id}`)).status).toBe(200);
    const said = "`DELETE` of predictions and batches answers 405, `DELETE /v1/owners/{owner}/data` 404.";
    expect(page).toContain(said);
  });

  const attemptsOf = async (id: string): Promise<number> =>
    (await stack.get(`/v1/predictions/${id}/deliveries`)).body.data[0]?.attempts.length ?? 0;
});

/** All that a key holds, as one text. */
async function contents(redis: Redis, key: string): Promise<string> {
  switch (await redis.type(key)) {
    case "string":
      return (await redis.get(key)) ?? "";
    case "hash":
      return JSON.stringify(await redis.hgetall(key));
    case "list":
      return JSON.stringify(await redis.lrange(key, 0, -1));
    case "set":
      return JSON.stringify(await redis.smembers(key));
    case "zset":
      return JSON.stringify(await redis.zrange(key, "0", "-1"));
    case "stream":
      return JSON.stringify(await redis.xrange(key, "-", "+"));
    default:
      return "";
  }
}
