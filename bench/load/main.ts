import { exchangeBatch } from "./exchange-batch.js";
import { fetchBody } from "./fetch-body.js";
import { holdWaits } from "./hold-waits.js";
import type { LoadOrder, LoadReply } from "./load-spec.js";
import { pace } from "./pace.js";
import { runLoad } from "./run-load.js";
import { sendBody } from "./send-body.js";

let stop = () => {};

function carryOut(order: Exclude<LoadOrder, { stop: true }>): Promise<LoadReply> {
  if ("run" in order) return runLoad(order.run).then((report) => ({ report }));
  if ("hold" in order) return holdWaits(order.hold).then((held) => ({ held }));
  if ("send" in order) return sendBody(order.send).then((sent) => ({ sent }));
  if ("fetch" in order) return fetchBody(order.fetch).then((fetched) => ({ fetched }));
  if ("exchange" in order) return exchangeBatch(order.exchange).then((exchanged) => ({ exchanged }));
  const paced = pace(order.pace);
  stop = paced.stop;
  return paced.report.then((report) => ({ paced: report }));
}

/** The generator: a separate process, so that its CPU time is counted separately. Runs one order at a time. */
process.on("message", (order: LoadOrder) => {
  if ("stop" in order) return stop();
  carryOut(order)
    .catch((fault: Error) => ({ fault: fault.message }))
    .then((reply) => process.send?.(reply));
});
process.on("disconnect", () => process.exit(0));
process.on("SIGINT", () => undefined);
