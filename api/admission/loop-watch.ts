import { performance } from "node:perf_hooks";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { RequestHandler } from "express";

const checkEveryMs = 100;
/** Lateness below which the process has recovered. */
const recoveredMs = 250;
/** Timely checks in a row until the process counts as recovered: a busy one has good moments, too. */
const checksToRecover = 5;

export interface LoopWatch {
  /** Whether the event loop lags so far behind that new work is to be turned away. */
  isDrowning(): boolean;
  close(): void;
}

/**
 * Watches the lateness of a timer. The last check says little about a request that comes now, so a timer that is
 * overdue at this moment counts as well: after a long stall, requests are read before timers run. From a lateness of
 * `drowningMs` on the process counts as overloaded.
 */
export function watchLoop(drowningMs: number): LoopWatch {
  let dueAt = performance.now() + checkEveryMs;
  let drowning = false;
  let good = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    const lateMs = now - dueAt;
    good = lateMs > recoveredMs ? 0 : good + 1;
    if (lateMs > drowningMs) drowning = true;
    else if (good >= checksToRecover) drowning = false;
    dueAt = now + checkEveryMs;
  }, checkEveryMs);
  timer.unref();
  return {
    isDrowning: () => drowning || performance.now() - dueAt > drowningMs,
    close: () => clearInterval(timer),
  };
}

/**
 * Turns new work away while the process is drowning. It comes first in the chain of every route that makes work, before
 * the key is looked at or anything of the body is read; reads, cancels and results go on, because they end work.
 */
export function shedWhenDrowning(loop: LoopWatch): RequestHandler {
  return (_request, _response, next) => {
    if (!loop.isDrowning()) return next();
    const detail = "This process is overloaded and takes no new work for a moment. Try again.";
    throw new ServiceError("overloaded", detail, { retryAfterSeconds: 1 });
  };
}
