import { HoldLimit } from "@millrace/workers/queue/hold-limit.js";
import { describe, expect, test } from "vitest";

const everyMs = 1000;

describe("the number of jobs that a worker may hold", () => {
  let now = 0;
  const open = () => {
    now = 0;
    const limit = new HoldLimit({ everyMs, now: () => now });
    limit.due();
    return limit;
  };
  /** A renewal that ends so late. */
  const renew = (limit: HoldLimit, held: number, lateMs: number, lost = false) => {
    now += everyMs + lateMs;
    limit.renewed(held, lost);
    limit.due();
    return limit.jobs;
  };

  test("grows with each renewal in time that has use for it, and only then", () => {
    const limit = open();
    const first = limit.jobs;
    expect(renew(limit, 1, 0)).toBe(first);
    expect([renew(limit, first, 10), renew(limit, 2 * first, 10)]).toEqual([2 * first, 4 * first]);
    expect(renew(limit, 4 * first, 0.6 * everyMs)).toBe(4 * first);
    for (let i = 0; i < 20; i++) renew(limit, limit.jobs, 0);
    expect(limit.jobs).toBe(4096);
  });

  test("halves with each renewal that is late or has lost a lock, down to one", () => {
    const limit = open();
    const first = limit.jobs;
    expect(renew(limit, first, 1.1 * everyMs)).toBe(first / 2);
    expect(renew(limit, first, 0, true)).toBe(first / 4);
    for (let i = 0; i < 20; i++) renew(limit, limit.jobs, 2 * everyMs);
    expect(limit.jobs).toBe(1);
    expect(renew(limit, 1, 0)).toBe(2);
  });

  test("allows nothing more while a renewal is overdue", () => {
    const limit = open();
    now += 1.9 * everyMs;
    expect(limit.isLate).toBe(false);
    now += 0.2 * everyMs;
    expect(limit.isLate).toBe(true);
    renew(limit, 1, 0);
    expect(limit.isLate).toBe(false);
  });
});
