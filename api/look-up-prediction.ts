import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { ServiceError } from "@millrace/shared/errors.js";
import { predictionJobSchema } from "@millrace/shared/job.js";
import { noticeChannel, tagOfId } from "@millrace/shared/keys.js";
import { isFinalStatus, type PredictionView, predictionJson } from "@millrace/shared/prediction.js";
import { finishPredictions } from "@millrace/shared/scripts/finish.js";
import { type PendingPrediction, readPrediction } from "@millrace/shared/scripts/read.js";
import type { KnownModel, ModelDirectory } from "./model-directory.js";
import type { Notices } from "./notices.js";

export interface LookUpDependencies {
  redis: RedisClient;
  directory: ModelDirectory;
  notices: Notices;
  keyPrefix: string;
  resultTtlSeconds: number;
}

export interface LookedUp {
  json: string;
  final: boolean;
}

const unknownId = () => new ServiceError("prediction_not_found", "there is no such prediction");

/**
 * A prediction of the owner's, as it stands now. Another owner's id is unknown too, after the same steps. What has
 * expired is told as expired, and made so for good, even while no worker lives.
 */
export async function lookUpPrediction(deps: LookUpDependencies, owner: string, id: string): Promise<LookedUp> {
  const model = await modelOfId(deps, id);
  const read = await readPrediction(deps.redis, model.keys, id);
  if (read === null) throw unknownId();
  if ("final" in read) {
    if (read.final.owner !== owner) throw unknownId();
    return { json: read.final.json, final: true };
  }
  const view = viewOf(model, id, read.pending);
  if (view.owner !== owner) throw unknownId();
  if (view.status !== "expired") return { json: predictionJson(view), final: false };
  const json = predictionJson(view);
  const [outcome] = await finishPredictions(
    deps.redis,
    model.keys,
    [{ id, token: null, result: { owner, status: "expired", json } }],
    { resultTtlSeconds: deps.resultTtlSeconds, channelPrefix: noticeChannel(deps.keyPrefix, "") },
  );
  // Somebody ended or began it in between: what they wrote is right.
  return outcome === "written" ? { json, final: true } : lookUpPrediction(deps, owner, id);
}

/** As `lookUpPrediction`, but waits for the end, for `waitMs` at the most or until `gone` says that nobody listens. */
export async function awaitPrediction(
  deps: LookUpDependencies,
  owner: string,
  id: string,
  waitMs: number,
  gone: AbortSignal,
): Promise<LookedUp> {
  const model = await modelOfId(deps, id);
  const first = await lookUpPrediction(deps, owner, id);
  if (first.final || waitMs === 0) return first;
  const waiter = deps.notices.wait(id, waitMs);
  gone.addEventListener("abort", () => waiter.close());
  try {
    await deps.redis
      .pipeline()
      .sadd(model.keys.watchers(id), deps.notices.apiId)
      .pexpire(model.keys.watchers(id), waitMs + 5000)
      .exec();
    // It may have ended before the note was there, and nobody would tell.
    let latest = await lookUpPrediction(deps, owner, id);
    while (!latest.final && !gone.aborted) {
      const news = await waiter.next();
      if (news === null) break;
      latest = news === "look" ? await lookUpPrediction(deps, owner, id) : { json: news.json, final: true };
    }
    return latest;
  } finally {
    waiter.close();
  }
}

async function modelOfId(deps: LookUpDependencies, id: string): Promise<KnownModel> {
  const tag = tagOfId(id);
  const model = tag === null ? null : await deps.directory.findByTag(tag);
  if (model === null) throw unknownId();
  return model;
}

/** What the parts in Redis amount to, by the clock. */
function viewOf(model: KnownModel, id: string, pending: PendingPrediction): PredictionView & { owner: string } {
  const data = predictionJobSchema.parse(JSON.parse(pending.dataJson));
  const now = Date.now();
  const { note } = pending;
  const expired = note === null && data.e !== undefined && data.e <= now;
  const scheduled = note === null && pending.attemptsMade === 0 && now < pending.createdAt + pending.delayMs;
  const status = expired ? "expired" : note !== null ? "running" : scheduled ? "scheduled" : "queued";
  return {
    owner: data.o,
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
    metadata: data.m,
    retryOf: data.ro,
    queuePosition: status === "queued" ? position(pending, data.q) : null,
    modelDigest: model.versions.get(data.ver)?.announcement.digest ?? "",
    timings: null,
  };
}

/** The list holds the last `waiting` arrivals, more or less, which places each of them without looking. */
function position({ added, waiting, priority }: PendingPrediction, arrival: number | undefined): number {
  if (priority > 0 || arrival === undefined) return waiting + 1;
  return Math.max(1, Math.min(waiting, arrival - (added - waiting)));
}
