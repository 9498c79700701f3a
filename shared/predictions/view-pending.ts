import type { PendingPrediction } from "../scripts/predictions/read.js";
import type { PredictionJob } from "./job.js";
import { metadataText } from "./metadata.js";
import { isFinalStatus, type PredictionView } from "./prediction.js";

/** What the parts in Redis of a prediction that is not final amount to, by the clock. */
export function viewPending(
  model: { name: string; digestOf(version: string): string },
  id: string,
  { data, ...pending }: PendingPrediction & { data: PredictionJob },
): PredictionView {
  const now = Date.now();
  const { note } = pending;
  const begun = note !== null || pending.attemptsMade > 0;
  const expired = !begun && data.e !== undefined && data.e <= now;
  const scheduled = !begun && now < pending.createdAt + pending.delayMs;
  const status = expired ? "expired" : note !== null ? "running" : scheduled ? "scheduled" : "queued";
  return {
    id,
    model: model.name,
    version: data.ver,
    status,
    outputJson: null,
    error: expired ? { code: "expired", detail: "it was not started in time" } : null,
    createdAt: pending.createdAt,
    startedAt: note?.startedAt ?? null,
    finishedAt: isFinalStatus(status) ? Math.max(data.e as number, pending.createdAt) : null,
    attempts: note?.attempt ?? pending.attemptsMade,
    cached: false,
    deduplicated: false,
    metadata: metadataText(data),
    retryOf: data.ro,
    queuePosition: status === "queued" ? pending.position : null,
    modelDigest: model.digestOf(data.ver),
    timings: null,
  };
}
