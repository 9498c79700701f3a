import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defaultManifest } from "@millrace/shared/models/manifest.js";
import { openLog } from "@millrace/shared/service/log.js";
import { SlotPool } from "@millrace/workers/runs/slot-pool.js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { stillRunning } from "../support/stack/processes.js";

const program = fileURLToPath(new URL("../support/models/scripted-slot.js", import.meta.url));
const pack = Buffer.from("anything");

describe("the slot pool", () => {
  let dir: string;
  let pool: SlotPool;
  let deaths: number;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-slots-"));
    deaths = 0;
  });
  afterEach(async () => {
    await pool.close();
    await rm(dir, { recursive: true, force: true });
  });

  const open = (slots: number) => {
    pool = new SlotPool({
      ...{ slots, program, retryMs: 50, slowLoadMs: 200, log: openLog("worker", "error") },
      environment: { PATH: process.env.PATH, NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE },
      onIdle: () => undefined,
      onDeath: () => {
        deaths += 1;
      },
    });
  };
  const behaviourFile = (key: number) => join(dir, String(key));
  const request = (key: number, limitMs = 120_000) => ({
    ...{ key, model: "m", version: String(key), folder: behaviourFile(key), file: "", digest: "sha256:" },
    manifest: { ...defaultManifest(), session: { load_timeout_ms: limitMs } },
  });
  const load = async (...keys: number[]) => (await pool.load(keys.map((key) => request(key)))).map(({ ok }) => ok);
  const run = (key: number) => pool.use(key, (slot) => slot.run(key, [pack], { joins: true, timeoutMs: 10_000 }));

  test("loads a new version in new processes beside the slots, which keep running until then", async () => {
    open(2);
    expect(await load(1)).toEqual([true]);
    const before = pool.pids;
    const loading = load(2);
    expect(pool.hasIdle(1)).toBe(true);
    await run(1);
    expect(await loading).toEqual([true]);
    expect(pool.pids).toHaveLength(2);
    expect(pool.pids.filter((pid) => before.includes(pid))).toEqual([]);
    await eventually(async () => expect(await stillRunning(before)).toEqual([]));
    for (const key of [1, 2]) await run(key);
    pool.unload(1);
    expect([pool.hasIdle(1), pool.hasIdle(2), deaths]).toEqual([false, true, 0]);
  });

  test("refuses a version that kills its process or fails to load, without harming slots in service", async () => {
    open(2);
    expect(await load(1)).toEqual([true]);
    const before = pool.pids;
    await writeFile(behaviourFile(2), "die");
    await writeFile(behaviourFile(3), "refuse");
    expect(await pool.load([request(2), request(3)])).toEqual([
      { key: 2, ok: false, reason: "loading it killed the process", died: true },
      { key: 3, ok: false, reason: "not now" },
    ]);
    expect([pool.pids, pool.alive, deaths]).toEqual([before, 2, 0]);
    await run(1);
    // A fixed version may be loaded again.
    await rm(behaviourFile(2));
    expect(await load(2)).toEqual([true]);
  });

  test.each(["die", "refuse"])(
    "works without a version that a new process cannot load (%s), and has it again once it can",
    async (behaviour) => {
      open(1);
      expect(await load(1, 2)).toEqual([true, true]);
      await writeFile(behaviourFile(1), behaviour);
      process.kill(pool.pids[0] as number, "SIGKILL");
      await eventually(() => expect([deaths, pool.hasIdle(2), pool.hasIdle(1)]).toEqual([1, true, false]));
      await run(2);
      await rm(behaviourFile(1));
      await eventually(() => expect(pool.hasIdle(1)).toBe(true));
      for (const key of [1, 2]) await run(key);
      expect(deaths).toBe(1);
    },
  );

  test("keeps a slot with a version that no new process can load, and loads new ones in that slot", async () => {
    open(1);
    expect(await load(1)).toEqual([true]);
    const before = pool.pids;
    await writeFile(behaviourFile(1), "refuse");
    expect(await load(2)).toEqual([true]);
    expect(pool.pids).toEqual(before);
    for (const key of [1, 2]) await run(key);
    expect(pool.holds(1)).toBe(true);
    // After the slot's death no slot has the version, and the pool reports that.
    process.kill(before[0] as number, "SIGKILL");
    await eventually(() => expect([pool.holds(1), pool.holds(2), pool.hasIdle(2)]).toEqual([false, true, true]));
  });

  test("serves a version that kills only one of its first processes", async () => {
    open(1);
    await writeFile(behaviourFile(1), "die once");
    expect(await load(1)).toEqual([true]);
    await run(1);
  });

  test.each([1, 2])(
    "serves each version as soon as it is loaded, beside loads that never end (%i slots)",
    async (slots) => {
      open(slots);
      const hung = [2, 3, 4];
      for (const key of hung) await writeFile(behaviourFile(key), "hang");
      const decided: number[] = [];
      const aside: number[] = [];
      const limitMs = 5000;
      const loading = pool.load(
        [1, ...hung, 5].map((key) => request(key, key === 4 ? limitMs : undefined)),
        {
          decided: ({ key, ok }) => {
            decided.push(ok ? key : -key);
            if (ok) expect(pool.holds(key)).toBe(true);
          },
          setAside: (key) => aside.push(key),
        },
      );
      await eventually(() => expect(decided).toEqual(expect.arrayContaining([1, 5])));
      expect(decided).not.toContain(-2);
      expect(decided).not.toContain(-3);
      await eventually(async () => {
        for (const key of [1, 5]) await run(key);
      });
      await eventually(() => expect(decided).toContain(-4));
      for (const key of [2, 3]) pool.unload(key);
      const replies = await loading;
      expect(replies.filter(({ ok }) => ok).map(({ key }) => key)).toEqual([1, 5]);
      expect(replies[1]).toMatchObject({ reason: "it was unloaded meanwhile" });
      expect(replies[3]).toMatchObject({
        reason: `loading it took over ${limitMs} ms (session.load_timeout_ms)`,
        died: true,
      });
      expect(aside).toEqual(expect.arrayContaining(hung));
      for (const key of [1, 5]) await run(key);
      expect([deaths, pool.alive]).toEqual([0, slots]);
    },
  );

  test("loads a version beside one that is slow, and serves that one too once it is loaded", async () => {
    open(2);
    await writeFile(behaviourFile(1), "hang");
    const decided: number[] = [];
    const loading = pool.load([request(1)], { decided: ({ key }) => decided.push(key) });
    // With nothing else to load it is not set aside.
    const begun = pool.pids;
    expect(await load(2)).toEqual([true]);
    expect([decided, pool.hasIdle(2)]).toEqual([[], true]);
    await rm(behaviourFile(1));
    expect((await loading).map(({ ok }) => ok)).toEqual([true]);
    expect(await load(3)).toEqual([true]);
    for (const key of [1, 2, 3]) await run(key);
    await eventually(async () => expect(await stillRunning(begun)).toEqual([]));
  });

  test("ends a load that never ends when its version is not wanted any more", async () => {
    open(1);
    await writeFile(behaviourFile(2), "hang");
    const loading = pool.load([request(1), request(2)]);
    await eventually(() => run(1));
    pool.unload(2);
    expect((await loading).map(({ ok }) => ok)).toEqual([true, false]);
    await run(1);
  });
});
