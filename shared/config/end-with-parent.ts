import { Socket } from "node:net";

/**
 * The argument of a service whose parent holds the other end of its standard input and never writes. The kernel closes
 * that when the parent ends, in whatever way.
 */
export const endWithParentArgument = "--end-with-parent";

/** Calls back once, when the parent has ended. For a service that was started with `endWithParentArgument`. */
export function onParentEnd(callback: () => void): void {
  const lifeline = new Socket({ fd: 0, readable: true, writable: false });
  let ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    // What this process still logs has no reader.
    for (const output of [process.stdout, process.stderr]) output.on("error", () => undefined);
    callback();
  };
  lifeline.on("end", end);
  lifeline.on("error", end);
  lifeline.resume();
  lifeline.unref();
}
