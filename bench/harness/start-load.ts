import { fork } from "node:child_process";
import type { LoadReply, LoadReport, LoadSpec } from "../load/load-spec.js";
import { inRoot } from "./paths.js";
import type { OnClose } from "./releasers.js";

/** The load generator. */
export interface Load {
  pid: number;
  /** Carries out one run; rejects when an answer is not as expected. */
  run(spec: LoadSpec): Promise<LoadReport>;
}

/** Starts the generator as a process of its own. */
export function startLoad(onClose: OnClose): Load {
  const child = fork(inRoot("bench/dist/load/main.js"));
  onClose(() => child.disconnect());
  return {
    pid: child.pid as number,
    run: (spec) =>
      new Promise((resolve, reject) => {
        const onExit = () => reject(new Error("the load generator ended"));
        child.once("exit", onExit);
        child.once("message", (reply: LoadReply) => {
          child.off("exit", onExit);
          if ("report" in reply) resolve(reply.report);
          else reject(new Error(reply.fault));
        });
        child.send(spec);
      }),
  };
}
