import { holdWaits } from "./hold-waits.js";
import type { LoadOrder, LoadReply } from "./load-spec.js";
import { runLoad } from "./run-load.js";

/** The generator: a process of its own, so that its CPU time is told apart. It takes one run after the other. */
process.on("message", (order: LoadOrder) => {
  const done: Promise<LoadReply> =
    "run" in order
      ? runLoad(order.run).then((report) => ({ report }))
      : holdWaits(order.hold).then((held) => ({ held }));
  done.catch((fault: Error) => ({ fault: fault.message })).then((reply) => process.send?.(reply));
});
process.on("disconnect", () => process.exit(0));
process.on("SIGINT", () => undefined);
