import type { LoadReply, LoadSpec } from "./load-spec.js";
import { runLoad } from "./run-load.js";

/** The generator: a process of its own, so that its CPU time is told apart. It takes one run after the other. */
process.on("message", (spec: LoadSpec) => {
  const reply = (message: LoadReply) => process.send?.(message);
  runLoad(spec).then(
    (report) => reply({ report }),
    (fault: Error) => reply({ fault: fault.message }),
  );
});
process.on("disconnect", () => process.exit(0));
process.on("SIGINT", () => undefined);
