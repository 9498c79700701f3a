/** Parts that a deadline is counted in. */
const parts = 16;

/**
 * Calls `end` after `ms` in which this process ran, and returns what calls it off. A part of the time counts at most
 * twice its length, so that others do not pay for a process that stood still or had no processor; and what has arrived
 * by the end is read first.
 */
export function runningDeadline(ms: number, end: () => void): () => void {
  const partMs = ms / parts;
  let leftMs = ms;
  let from = performance.now();
  let timer: NodeJS.Timeout;
  let last: NodeJS.Immediate | undefined;
  const wait = () => {
    timer = setTimeout(
      () => {
        const now = performance.now();
        leftMs -= Math.min(now - from, 2 * partMs);
        from = now;
        if (leftMs > 0) wait();
        else last = setImmediate(end);
      },
      Math.min(leftMs, partMs),
    );
  };
  wait();
  return () => {
    clearTimeout(timer);
    clearImmediate(last);
  };
}
