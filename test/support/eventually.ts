import { setTimeout as delay } from "node:timers/promises";

/**
 * Repeats a check until it no longer throws, and returns its value; after `withinMs` throws the last error. For
 * conditions without an event to wait for.
 */
export async function eventually<T>(check: () => T | Promise<T>, withinMs = 15_000): Promise<T> {
  const deadline = Date.now() + withinMs;
  for (let pauseMs = 5; ; pauseMs = Math.min(100, pauseMs * 2)) {
    try {
      return await check();
    } catch (fault) {
      if (Date.now() > deadline) throw fault;
      await delay(pauseMs);
    }
  }
}
