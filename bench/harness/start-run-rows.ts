import { fork } from "node:child_process";
import { once } from "node:events";
import type { RunRowsOrder, RunRowsReply } from "../floor/run-rows-spec.js";
import { inRoot } from "./paths.js";
import type { OnClose } from "./releasers.js";

/** Starts the bare runner as a separate process; returns a function that runs rows in it. */
export function startRunRows(
  onClose: OnClose,
): (order: RunRowsOrder) => Promise<Exclude<RunRowsReply, { fault: string }>> {
  const child = fork(inRoot("bench/dist/floor/run-rows.js"));
  onClose(() => child.disconnect());
  return async (order) => {
    const ended = new AbortController();
    const onExit = () => ended.abort();
    child.once("exit", onExit);
    child.send(order);
    const [reply] = (await once(child, "message", { signal: ended.signal })) as [RunRowsReply];
    child.off("exit", onExit);
    if ("fault" in reply) throw new Error(reply.fault);
    return reply;
  };
}
