import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import type { ResultWriter } from "./finish-prediction.js";
import type { processPrediction } from "./process-prediction.js";
import type { TakenJob } from "./taken-prediction.js";

type Process = ReturnType<typeof processPrediction>;

/** The times in a final prediction's JSON. */
interface FinalPrediction {
  model: string;
  version: string;
  status: string;
  created_at: string;
  started_at: string | null;
  error: { code: string } | null;
  timings: { inference_ms: number; batch_rows: number } | null;
}

/**
 * Spans of predictions, made by wrappers around processor and writer, so that a worker without tracing runs no further
 * line. Jobs without a traceparent have none.
 */
export function tracePredictions(
  tracing: Tracing,
  redis: RedisClient,
  keys: ModelKeys,
  { clock, keptSeconds }: { keptSeconds: number; clock: Clock },
) {
  const parents = new Map<string, string>();
  return {
    process:
      (process: Process): Process =>
      async (job: TakenJob, token: string) => {
        const id = job.id as string;
        const { tp } = job.data as { tp?: string };
        if (tp === undefined) return process(job, token);
        parents.set(id, tp);
        // For the prediction's webhooks, on any worker. Without it their spans have no parent; no prediction waits or
        // fails for that.
        redis.set(keys.trace(id), tp, "EX", keptSeconds).catch(() => undefined);
        try {
          return await process(job, token);
        } finally {
          parents.delete(id);
        }
      },
    writer: (writer: ResultWriter): ResultWriter => ({
      async write(finish) {
        const parent = parents.get(finish.id);
        if (parent === undefined) return writer.write(finish);
        const begun = clock.now();
        const outcome = await writer.write(finish);
        const written = { from: begun, to: clock.now() };
        if (outcome === "written") tell(tracing, parent, finish.id, JSON.parse(finish.result.json), written);
        return outcome;
      },
    }),
  };
}

/** Four spans of one prediction: queue, slot, the ONNX run in it, and the writing. */
function tell(
  tracing: Tracing,
  parent: string,
  id: string,
  prediction: FinalPrediction,
  written: { from: number; to: number },
): void {
  const writtenFrom = written.from;
  const { error, model, started_at: started, status, timings, version } = prediction;
  const attributes = { "millrace.prediction_id": id, "millrace.model": model, "millrace.version": version };
  const startedAt = started === null ? writtenFrom : Date.parse(started);
  tracing.note("queue", startedAt, {
    kind: "consumer",
    parent,
    startedAt: Date.parse(prediction.created_at),
    attributes,
  });
  if (started !== null) {
    const slot = tracing.note("slot", writtenFrom, {
      parent,
      startedAt,
      attributes: { ...attributes, "millrace.status": status },
      fault: error?.code ?? null,
    });
    if (timings !== null) {
      const attributes = { "millrace.batch_rows": timings.batch_rows };
      // The start of the ONNX run within the slot's span is not known; both end together.
      const from = Math.max(startedAt, writtenFrom - timings.inference_ms);
      tracing.note("inference", writtenFrom, { parent: slot.traceparent, startedAt: from, attributes });
    }
  }
  tracing.note("write result", written.to, { parent, startedAt: writtenFrom, attributes });
}
