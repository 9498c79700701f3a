import { setImmediate as nextTurn } from "node:timers/promises";

/** Time for which a piece of long work may hold up the event loop, roughly. */
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

const smallestSliceBytes = 1024;
const largestSliceBytes = 256 * 1024;

/** Cuts pieces of bytes into slices whose work takes about as long as a turn, by how long the last ones took. */
export class TimedSlices {
  #sliceBytes = 4 * smallestSliceBytes;

  /** The slice of a piece that begins at `at`. */
  from(bytes: Buffer, at: number): Buffer {
    return bytes.subarray(at, at + this.#sliceBytes);
  }

  /** Does the work on a slice. */
  timed<Result>(work: () => Result): Result {
    const begunAt = performance.now();
    const result = work();
    const tookMs = performance.now() - begunAt;
    if (tookMs > turnMs) this.#sliceBytes = Math.max(smallestSliceBytes, this.#sliceBytes >> 1);
    else if (tookMs < turnMs / 4) this.#sliceBytes = Math.min(largestSliceBytes, 2 * this.#sliceBytes);
    return result;
  }
}
