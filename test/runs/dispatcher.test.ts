import { setTimeout as delay } from "node:timers/promises";
import { Dispatcher } from "@millrace/workers/runs/dispatcher.js";
import type { Outcome, RunQueue, Work } from "@millrace/workers/runs/work.js";
import { describe, expect, test } from "vitest";
import { itemOf, ManualSlots } from "../support/models/manual-slots.js";
import { machineClock } from "../support/redis/machine-clock.js";

const done = (id: string): Outcome => ({ kind: "done", item: itemOf(id) });
/** A table in two parts, of which the first is that text. */
const tableOf = (text: string) => [Buffer.from(text), Buffer.alloc(0)] as const;
/** Lets all pending callbacks run. */
const settle = () => delay(5);
/** Ends the current turn of the event loop, no more. */
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

function setUp(overrides: Partial<RunQueue> = {}, slots = 1) {
  const runner = new ManualSlots(slots);
  const dispatcher = new Dispatcher(runner, machineClock);
  const runQueue: RunQueue = {
    ...{ model: "m", version: "1", modelKey: 0, joinable: true, maxBatchRows: 4, maxDelayMs: 0, timeoutMs: 1000 },
    ...overrides,
  };
  const begun: [string, boolean][] = [];
  const submit = (id: string, rest: Partial<Work> = {}) =>
    dispatcher.submit({
      ...{
        id,
        runQueue,
        pack: Buffer.from(id),
        rows: 1,
        owner: "alice",
        priority: 0,
        signature: "",
        alone: false,
        ...rest,
      },
      onBegin: (_at, alone) => begun.push([id, alone]),
    });
  return { runner, dispatcher, runQueue, begun, submit };
}

describe("the dispatcher", () => {
  test("starts at once on an idle slot, and joins only works that arrived while it was busy", async () => {
    const { begun, runner, submit } = setUp();
    const all = [submit("a")];
    await turn();
    expect(runner.ids).toEqual([["a"]]);
    all.push(submit("b"));
    await turn();
    all.push(submit("c"));
    await turn();
    expect(runner.ids).toEqual([["a"]]);
    runner.runs[0]?.end();
    await settle();
    expect(runner.ids).toEqual([["a"], ["b", "c"]]);
    expect(begun).toEqual([
      ["a", true],
      ["b", false],
      ["c", false],
    ]);
    runner.runs[1]?.end();
    expect(await Promise.all(all)).toEqual(["a", "b", "c"].map(done));
  });

  test("joins works of one turn of the event loop on an idle slot too, but no later ones", async () => {
    const { begun, runner, submit } = setUp({}, 2);
    const all = ["a", "b", "c"].map((id) => submit(id));
    expect(runner.ids).toEqual([]);
    await turn();
    expect(runner.ids).toEqual([["a", "b", "c"]]);
    all.push(submit("d"));
    await turn();
    expect(runner.ids).toEqual([["a", "b", "c"], ["d"]]);
    expect(begun).toEqual([
      ["a", false],
      ["b", false],
      ["c", false],
      ["d", true],
    ]);
    for (const run of runner.runs) run.end();
    expect(await Promise.all(all)).toEqual(["a", "b", "c", "d"].map(done));
  });

  test("never joins more rows than the model allows, keeps the order, and runs a larger input alone", async () => {
    const { runner, submit } = setUp();
    submit("a");
    await turn();
    for (const [id, rows] of [
      ["b", 2],
      ["c", 2],
      ["d", 1],
      ["big", 9],
      ["e", 4],
    ] as const)
      submit(id, { rows });
    for (let i = 0; i < 5; i++) {
      runner.runs[i]?.end();
      await settle();
    }
    expect(runner.ids).toEqual([["a"], ["b", "c"], ["d"], ["big"], ["e"]]);
  });

  test("joins only inputs of one signature and one model, and none of a model that is not joinable", async () => {
    const { runQueue, runner, submit } = setUp();
    const other = { ...runQueue, modelKey: 1 };
    const single = { ...runQueue, modelKey: 2, joinable: false };
    submit("a");
    await turn();
    submit("b1", { signature: "b" });
    submit("c1", { runQueue: other });
    submit("b2", { signature: "b" });
    submit("c2", { runQueue: other });
    submit("s1", { runQueue: single });
    submit("s2", { runQueue: single });
    for (let i = 0; i < 5; i++) {
      runner.runs[i]?.end();
      await settle();
    }
    expect(runner.ids).toEqual([["a"], ["b1", "b2"], ["c1", "c2"], ["s1"], ["s2"]]);
  });

  test("stops joining a model whose slot found dependent rows", async () => {
    const { runner, submit } = setUp();
    submit("a");
    await turn();
    for (const id of ["b", "c"]) submit(id);
    runner.runs[0]?.end('output "y" had 1 entries for 2 rows');
    await settle();
    expect(runner.ids).toEqual([["a"], ["b"]]);
  });

  test("gives an idle slot to the work that has waited longest, so that a busy model starves no other", async () => {
    const { runQueue, runner, submit } = setUp({ maxBatchRows: 1 });
    const other = { ...runQueue, modelKey: 1 };
    for (const id of ["a1", "a2", "a3"]) submit(id);
    await settle();
    submit("b1", { runQueue: other });
    await settle();
    submit("a4");
    for (let i = 0; i < 4; i++) {
      runner.runs[i]?.end();
      await settle();
    }
    expect(runner.ids.flat()).toEqual(["a1", "a2", "a3", "b1", "a4"]);
  });

  test("waits on an idle slot for more works up to maxDelayMs, or until a run is full", async () => {
    const { runner, submit } = setUp({ maxDelayMs: 80, maxBatchRows: 2 }, 2);
    const begun = performance.now();
    submit("a");
    await turn();
    expect(runner.ids).toEqual([]);
    submit("b");
    await turn();
    expect(runner.ids).toEqual([["a", "b"]]);
    submit("c");
    while (runner.runs.length < 2) await settle();
    expect(performance.now() - begun).toBeGreaterThanOrEqual(79);
    expect(runner.ids).toEqual([["a", "b"], ["c"]]);
  });

  test.each([
    ["timeout", "timeout"],
    ["crash", "poisoned"],
  ] as const)(
    "after a joined run ends by %s each work runs alone, and only one that repeats it is blamed",
    async (reason, code) => {
      const { begun, runner, submit } = setUp();
      submit("a");
      await turn();
      const all = ["x", "faulty", "y"].map((id) => submit(id));
      runner.runs[0]?.end();
      await settle();
      runner.runs[1]?.die(reason);
      await settle();
      for (let i = 2; i < 5; i++) {
        const run = runner.runs[i];
        if (run?.ids[0] === "faulty") run.die(reason);
        else run?.end();
        await settle();
      }
      expect(runner.ids).toEqual([["a"], ["x", "faulty", "y"], ["x"], ["faulty"], ["y"]]);
      expect(begun.slice(4)).toEqual([
        ["x", true],
        ["faulty", true],
        ["y", true],
      ]);
      expect(await Promise.all(all)).toEqual([done("x"), { kind: "blamed", code }, done("y")]);
    },
  );

  test("runs the most urgent works first, equal ones in order of arrival, within and across models", async () => {
    const { runQueue, runner, submit } = setUp({ maxBatchRows: 1 });
    const other = { ...runQueue, modelKey: 1 };
    submit("busy");
    await turn();
    submit("a9", { priority: 9 });
    submit("a1", { priority: 1 });
    submit("b5", { priority: 5, runQueue: other });
    submit("a1too", { priority: 1 });
    submit("b0", { runQueue: other });
    submit("a0");
    for (let i = 0; i < 6; i++) {
      runner.runs[i]?.end();
      await settle();
    }
    expect(runner.ids.flat()).toEqual(["busy", "b0", "a0", "a1", "a1too", "b5", "a9"]);
  });

  test("never begins canceled works, ends them if they run alone, and leaves the others unharmed", async () => {
    const { dispatcher, runner, submit } = setUp();
    const alone = submit("alone");
    await turn();
    const [dropped, ...joined] = ["dropped", "x", "y"].map((id) => submit(id));
    dispatcher.cancel("dropped");
    expect(await dropped).toEqual({ kind: "canceled" });
    dispatcher.cancel("alone");
    expect(await alone).toEqual({ kind: "canceled" });
    await settle();
    expect(runner.ids).toEqual([["alone"], ["x", "y"]]);
    dispatcher.cancel("x");
    dispatcher.cancel("nobody");
    await settle();
    runner.runs[1]?.end();
    expect(await Promise.all(joined)).toEqual(["x", "y"].map(done));
    expect(dispatcher.waiting).toBe(0);
  });

  test("joins nothing with a work that must run alone", async () => {
    const { runner, submit } = setUp();
    submit("a");
    await turn();
    submit("suspect", { alone: true });
    submit("suspect2", { alone: true });
    submit("b");
    for (let i = 0; i < 3; i++) {
      runner.runs[i]?.end();
      await settle();
    }
    expect(runner.ids).toEqual([["a"], ["suspect"], ["suspect2"], ["b"]]);
  });

  test("lets an urgent work overtake its own owner's works only, in that owner's turns", async () => {
    const { runner, submit } = setUp({ maxBatchRows: 1 });
    submit("first");
    await turn();
    for (const [id, owner, priority] of [
      ["a9", "alice", 9],
      ["b5", "bob", 5],
      ["a1", "alice", 1],
      ["b0", "bob", 0],
      ["a0", "alice", 0],
      ["a1too", "alice", 1],
    ] as const) {
      submit(id, { owner, priority });
    }
    await turn();
    for (let run = 0; run < 7; run++) {
      runner.runs[run]?.end();
      await settle();
    }
    expect(runner.ids.flat()).toEqual(["first", "a0", "b0", "a1", "b5", "a1too", "a9"]);
  });

  test("lets a part of a batch yield to later works, but not for ever, and joins it with nothing", async () => {
    const { runner, submit } = setUp();
    const bulk = { packs: [Buffer.from("b1"), Buffer.from("b2")] };
    const table = { table: tableOf("t") };
    submit("a");
    await turn();
    const parts = [submit("bulk", { bulk, alone: true, rows: 2 }), submit("table", { bulk: table, alone: true })];
    submit("c");
    submit("d", { priority: 1000 });
    await turn();
    for (let run = 0; run < 5; run++) {
      runner.runs[run]?.end();
      await settle();
    }
    expect(runner.ids).toEqual([["a"], ["c", "d"], ["b1", "b2"], ["t"]]);
    expect(await Promise.all(parts)).toEqual([
      { kind: "done in bulk", items: ["b1", "b2"].map(itemOf), table: null },
      { kind: "done in bulk", items: [], table: Buffer.from("t") },
    ]);
    // Other works keep arriving, so the part runs only because of its age.
    submit("first");
    const old = submit("old", { bulk, alone: true, rows: 2 });
    let passed = 0;
    for (await turn(); runner.runs.at(-1)?.ids[0] !== "b1"; passed++) {
      submit("more");
      await turn();
      runner.runs.at(-1)?.end();
      await settle();
    }
    expect(passed).toBeGreaterThan(2);
    runner.runs.at(-1)?.end();
    expect((await old).kind).toBe("done in bulk");
  });

  test("blames a part of a batch alone if its slot dies, and returns it if the worker ends", async () => {
    const { dispatcher, runner, submit } = setUp();
    const bulk = { table: tableOf("b") };
    const late = submit("late", { bulk, alone: true });
    await turn();
    runner.runs[0]?.die("timeout");
    expect(await late).toEqual({ kind: "blamed", code: "timeout" });
    const dead = submit("dead", { bulk, alone: true });
    await turn();
    runner.runs[1]?.die("crash");
    expect(await dead).toEqual({ kind: "blamed", code: "poisoned" });
    submit("a");
    await turn();
    const waiting = submit("waiting", { bulk, alone: true });
    await turn();
    const drained = dispatcher.drain();
    expect(await waiting).toEqual({ kind: "released" });
    runner.runs[2]?.end();
    await drained;
  });

  test("returns all works not begun at a drain, accepts no more, and waits for running ones", async () => {
    const { dispatcher, runner, submit } = setUp();
    const running = submit("a");
    await turn();
    const waiting = [submit("b"), submit("c", { alone: true })];
    let drained = false;
    const drain = dispatcher.drain().then(() => {
      drained = true;
    });
    expect(await Promise.all(waiting)).toEqual([{ kind: "released" }, { kind: "released" }]);
    expect(await submit("late")).toEqual({ kind: "released" });
    await settle();
    expect(drained).toBe(false);
    runner.runs[0]?.end();
    expect(await running).toEqual(done("a"));
    await drain;
    expect(runner.ids).toEqual([["a"]]);
    expect(dispatcher.waiting).toBe(0);
  });

  test("returns works for removed versions, and knows for which versions it still has work", async () => {
    const { dispatcher, runQueue, runner, submit } = setUp();
    submit("a");
    await turn();
    const gone = [
      submit("b", { runQueue: { ...runQueue, modelKey: 1 } }),
      submit("c", { runQueue: { ...runQueue, modelKey: 1 } }),
    ];
    const stays = submit("d");
    expect([0, 1, 2].map((key) => dispatcher.holds(key))).toEqual([true, true, false]);
    dispatcher.releaseOthers(new Set([0]));
    expect(await Promise.all(gone)).toEqual([{ kind: "released" }, { kind: "released" }]);
    expect(dispatcher.holds(1)).toBe(false);
    for (let i = 0; i < 2; i++) {
      runner.runs[i]?.end();
      await settle();
    }
    expect(await stays).toEqual(done("d"));
    expect(dispatcher.holds(0)).toBe(false);
  });

  test("blames no work for slots that end because the worker ends", async () => {
    const { dispatcher, runner, submit } = setUp();
    const running = submit("a");
    await turn();
    const drain = dispatcher.drain();
    runner.runs[0]?.die("closed");
    expect(await running).toEqual({ kind: "released" });
    await drain;
  });
});
