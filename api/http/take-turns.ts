import { setImmediate as nextTurn } from "node:timers/promises";

/** How long one piece of long work may hold up the event loop, roughly. */
const turnMs = 5;

/**
 * For long work in pieces: what it returns is to be awaited after each, and lets others have their turn now and then.
 */
export function takeTurns(): () => Promise<void> | undefined {
  let begunAt = performance.now();
  return () => {
    if (performance.now() - begunAt < turnMs) return undefined;
    return nextTurn().then(() => {
      begunAt = performance.now();
    });
  };
}
