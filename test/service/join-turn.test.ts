import { setImmediate as nextTurn } from "node:timers/promises";
import { JoinTurn, joinCalls } from "@millrace/shared/service/join-turn.js";
import { describe, expect, test } from "vitest";

/** Joined calls that answer with their step; `steps` records the calls of each. */
function recordedCalls(options: Parameters<typeof joinCalls<string, string>>[1] = {}) {
  const steps: string[][] = [];
  const call = joinCalls<string, string>(async (asked) => {
    steps.push(asked);
    if (asked.includes("bad")) throw new Error("refused");
    return asked.map((one) => `${one} of ${asked.length}`);
  }, options);
  return { call, steps };
}

describe("calls of one turn of the event loop", () => {
  test("become one step, which answers each by its position; those of the next turn become another", async () => {
    const { call, steps } = recordedCalls();
    const both = Promise.all([call("a"), call("b")]);
    expect(steps).toEqual([]);
    expect(await both).toEqual(["a of 2", "b of 2"]);
    expect(await call("c")).toBe("c of 1");
    expect(steps).toEqual([["a", "b"], ["c"]]);
  });

  test("are separated by key, and split into several steps if they are too many or too large", async () => {
    const byKey = recordedCalls({ keyOf: (text) => text.slice(0, 1), maxCalls: 2 });
    await Promise.all(["a1", "b1", "a2", "a3", "b2"].map(byKey.call));
    expect(byKey.steps).toEqual([["a1", "a2"], ["b1", "b2"], ["a3"]]);
    const bySize = recordedCalls({ maxBytes: 4, bytesOf: (text) => text.length });
    await Promise.all(["aa", "bbb", "c", "ddddd", "e"].map(bySize.call));
    expect(bySize.steps).toEqual([["aa", "bbb"], ["c", "ddddd"], ["e"]]);
  });

  test("are rejected with their own step only", async () => {
    const { call } = recordedCalls({ maxCalls: 2 });
    const ends = await Promise.allSettled(["a", "bad", "c"].map(call));
    expect(ends.map(({ status }) => status)).toEqual(["rejected", "rejected", "fulfilled"]);
  });

  test("run at the chosen moment: before or after the callbacks already planned in the turn", async () => {
    const order: string[] = [];
    const after = new JoinTurn<string>((all) => order.push(`after: ${all}`));
    const before = new JoinTurn<string>((all) => order.push(`before: ${all}`), queueMicrotask);
    after.add("x");
    before.add("y");
    before.add("z");
    expect(order).toEqual([]);
    await Promise.resolve();
    expect(order).toEqual(["before: y,z"]);
    await nextTurn();
    expect(order).toEqual(["before: y,z", "after: x"]);
  });
});
