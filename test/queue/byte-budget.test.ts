import { createByteBudget } from "@millrace/workers/jobs/byte-budget.js";
import { expect, test } from "vitest";

/** Takes in order; what was admitted by now, and what lets it go again. */
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

test("so many bytes are held at a time, by whoever asked first", async () => {
  const { admitted, release } = await takers(10, 4, 4, 4, 1);
  expect(admitted).toEqual([0, 1]);
  await release(1);
  expect(admitted).toEqual([0, 1, 2, 3]);
  await release(1);
  expect(admitted).toEqual([0, 1, 2, 3]);
});

test("what is larger than everything has its turn when nothing else is held", async () => {
  const { admitted, release } = await takers(10, 4, 50, 4);
  expect(admitted).toEqual([0]);
  await release(0);
  expect(admitted).toEqual([0, 1]);
  await release(1);
  expect(admitted).toEqual([0, 1, 2]);
});
