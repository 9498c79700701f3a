import { createByteBudget } from "@millrace/workers/jobs/byte-budget.js";
import { expect, test } from "vitest";

/** Takes `sizes` in order; returns the admitted ones so far, and their release. */
async function takers(total: number, ...sizes: number[]) {
  const budget = createByteBudget(total);
  const admitted: number[] = [];
  const held = sizes.map((size, i) =>
    budget.take(size).then((room) => {
      admitted.push(i);
      return room;
    }),
  );
  const settle = () => new Promise(setImmediate);
  await settle();
  return {
    admitted,
    async release(i: number) {
      (await held[i])?.release();
      await settle();
    },
  };
}

test("a byte budget admits up to its total, in order of requests", async () => {
  const { admitted, release } = await takers(10, 4, 4, 4, 1);
  expect(admitted).toEqual([0, 1]);
  await release(1);
  expect(admitted).toEqual([0, 1, 2, 3]);
  await release(1);
  expect(admitted).toEqual([0, 1, 2, 3]);
});

test("a request larger than the budget is admitted when nothing else is held", async () => {
  const { admitted, release } = await takers(10, 4, 50, 4);
  expect(admitted).toEqual([0]);
  await release(0);
  expect(admitted).toEqual([0, 1]);
  await release(1);
  expect(admitted).toEqual([0, 1, 2]);
});
