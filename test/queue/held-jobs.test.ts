import { HeldJobs } from "@millrace/workers/queue/held-jobs.js";
import { describe, expect, test } from "vitest";

describe("a job that a worker takes again while it still runs it", () => {
  test("continues under the new lock, and the second take begins after the end of the first", async () => {
    const held = new HeldJobs();
    const order: string[] = [];
    let end: () => void = () => undefined;
    const first = held.take("job", "lock 1", async (lock) => {
      await new Promise<void>((resolve) => {
        end = resolve;
      });
      order.push(`first ends under ${lock()}`);
    });
    const second = held.take("job", "lock 2", async (lock) => {
      order.push(`second begins under ${lock()}`);
    });
    const other = held.take("another job", "lock 3", async (lock) => {
      order.push(`another job runs under ${lock()}`);
    });
    await other;
    end();
    await Promise.all([first, second]);
    expect(order).toEqual(["another job runs under lock 3", "first ends under lock 2", "second begins under lock 2"]);
  });

  test("begins again if the first take failed", async () => {
    const held = new HeldJobs();
    const first = held.take("job", "lock 1", () => Promise.reject(new Error("released")));
    const second = held.take("job", "lock 2", async (lock) => lock());
    await expect(first).rejects.toThrow("released");
    expect(await second).toBe("lock 2");
  });
});
