import { ServiceError } from "@millrace/shared/service/errors.js";
import { z } from "zod";
import { parseBody } from "../http/read-json.js";
import {
  type Classified,
  type PredictNowDependencies,
  type PredictNowRequest,
  predictNow,
  requireWorker,
} from "./predict-now.js";

type FlowRow =
  | { index: number; prediction: string; confidence: number; probabilities: Record<string, number> }
  | { index: number; error: string };

const flowSchema = z.strictObject({ features: z.unknown() });
/** Faults of one flow alone; all others are of the request. */
const ofOneFlow = new Set(["invalid_request", "invalid_input", "inference_failed", "state_conflict"]);

/**
 * Predicts flows as so many single predictions, accepted together and joined by the worker as any others. A flow that
 * is not valid, or fails, fails alone. `inferenceMs` is what all of them cost in runs of the model.
 */
export async function predictFlows(
  deps: PredictNowDependencies,
  flows: readonly unknown[],
  request: Omit<PredictNowRequest, "input" | "inputPointer">,
): Promise<{ predictions: FlowRow[]; inferenceMs: number }> {
  await requireWorker(deps, request.model);
  let inferenceMs = 0;
  const settled = await Promise.allSettled(
    flows.map(async (flow, index): Promise<FlowRow> => {
      const { features } = parseBody(flowSchema, flow);
      const { idempotencyKey } = request;
      const finished = await predictNow(deps, {
        ...request,
        input: features,
        inputPointer: `/flows/${index}/features`,
        // One key stands for all flows, so each has its own made of it.
        idempotencyKey: idempotencyKey === null ? null : `${idempotencyKey}#${index}`,
      });
      inferenceMs += finished.shareMs;
      const { confidence, label, probabilities } = finished.output as Classified;
      return { index, prediction: label, confidence, probabilities };
    }),
  );
  const predictions = settled.map((row, index): FlowRow => {
    if (row.status === "fulfilled") return row.value;
    if (row.reason instanceof ServiceError && ofOneFlow.has(row.reason.code)) {
      return { index, error: row.reason.message };
    }
    throw row.reason;
  });
  return { predictions, inferenceMs: Math.round(inferenceMs * 1000) / 1000 };
}
