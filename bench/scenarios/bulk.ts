import { writeFlows } from "../harness/flows.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { jsonBatch } from "./bulk/json-batch.js";
import { memoryByRows } from "./bulk/memory-by-rows.js";
import { millionRows } from "./bulk/million-rows.js";
import { singlesBeside } from "./bulk/singles-beside.js";

/**
 * Batches: the latency of a small one; the rates of upload, run and reading of a large one; and its effect on others.
 */
export const bulk: Scenario = async (context) => {
  const load = startLoad(context.onClose);
  const flows = await writeFlows(context.onClose);
  if (!flows.real) context.say("the dataset is missing beside the repository: using made flows");
  return [
    figure(`different flows, ${flows.real ? "real" : "MADE"}, sent over and over`, flows.count, "1"),
    ...(await jsonBatch(context, load, flows)),
    ...(await millionRows(context, load, flows)),
    ...(await memoryByRows(context, load, flows)),
    ...(await singlesBeside(context, load, flows)),
  ];
};
