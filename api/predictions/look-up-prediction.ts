import { endedJobData, type PredictionJob, predictionJobSchema } from "@millrace/shared/predictions/job.js";
import { type PredictionView, predictionJson, type StoredResult } from "@millrace/shared/predictions/prediction.js";
import type { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import type { OnStored } from "@millrace/shared/predictions/storage-counter.js";
import { type ConfirmedWrite, confirmedByRedis } from "@millrace/shared/redis/confirm-writes.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { tagOfId } from "@millrace/shared/redis/ids.js";
import { cancelChannel, noticeChannel } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { endFinish, type FinishOutcome, finishPredictions } from "@millrace/shared/scripts/predictions/finish.js";
import { type PendingPrediction, readPrediction, viewPending } from "@millrace/shared/scripts/predictions/read.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type Logger, logTogether } from "@millrace/shared/service/log.js";
import type { KnownModel, ModelDirectory } from "../models/model-directory.js";
import type { Notices } from "./notices.js";

export interface LookUpDependencies {
  redis: RedisClient;
  confirmed: ConfirmedWrite;
  directory: ModelDirectory;
  notices: Notices;
  keyPrefix: string;
  resultTtlSeconds: number;
  statistics: StatisticsCounter;
  onStored: OnStored;
  clock: Clock;
  log: Logger;
}

export interface LookedUp {
  json: string;
  final: boolean;
  /** Of one that is final: what is kept of it. */
  result?: StoredResult | undefined;
  /** When it expires unless it starts, in ms since the epoch. */
  expiresAt?: number | undefined;
}

/** The same answer for every id, so that another owner's cannot be told from an unknown one. */
const unknownId = () => new ServiceError("prediction_not_found", "There is no such prediction, or it has expired.");

/**
 * A prediction of the owner's, as it stands now. Another owner's id is unknown too, after the same steps. What has
 * expired is told as expired, and made so for good, even while no worker lives.
 */
export async function lookUpPrediction(deps: LookUpDependencies, owner: string, id: string): Promise<LookedUp> {
  const { model, read } = await readOwned(deps, owner, id);
  if ("final" in read) return { json: read.final.json, final: true, result: read.final };
  const view = viewOf(model, id, read, deps.clock);
  if (view.status !== "expired") return { json: predictionJson(view), final: false, expiresAt: read.data.e };
  const json = predictionJson(view);
  const result: StoredResult = { owner, status: "expired", json };
  const outcome = await endPrediction(deps, model, id, read.data, "unbegun", result, false);
  // Somebody ended or began it in between: what they wrote is right.
  return outcome === "written" ? { json, final: true, result } : lookUpPrediction(deps, owner, id);
}

export type Owned = { final: StoredResult } | (PendingPrediction & { data: PredictionJob });

/** Reads a prediction if it is the owner's; else it is unknown. */
export async function readOwned(
  deps: LookUpDependencies,
  owner: string,
  id: string,
): Promise<{ model: KnownModel; read: Owned }> {
  const model = await modelOfId(deps, id);
  const read = await readPrediction(deps.redis, model.keys, id, owner);
  if (read === null) throw unknownId();
  if ("final" in read) {
    if (read.final.owner !== owner) throw unknownId();
    return { model, read };
  }
  // It was ended from outside, which empties its job, and its result time is over.
  if (read.pending.dataJson === endedJobData) throw unknownId();
  const data = predictionJobSchema.parse(JSON.parse(read.pending.dataJson));
  if (data.o !== owner) throw unknownId();
  return { model: await deps.directory.withVersion(model, data.ver), read: { ...read.pending, data } };
}

/** Writes a final state that is not a worker's, together with the input, so that it can be tried again. */
export async function endPrediction(
  deps: LookUpDependencies,
  model: KnownModel,
  id: string,
  data: PredictionJob,
  by: "unbegun" | "any",
  result: StoredResult,
  started: boolean,
): Promise<FinishOutcome> {
  // What expires would expire again; only a cancel is a promise.
  const confirmed = by === "any" ? deps.confirmed : confirmedByRedis(deps.redis);
  const [outcome] = await confirmed(model.keys, (redis) =>
    finishPredictions(redis, model.keys, [endFinish(id, data, by, result, started)], {
      resultTtlSeconds: deps.resultTtlSeconds,
      channelPrefix: noticeChannel(deps.keyPrefix, ""),
      cancelChannel: cancelChannel(deps.keyPrefix),
      onStored: deps.onStored,
      nowMs: deps.clock.now(),
    }),
  );
  if (outcome === "written") {
    deps.statistics.ended({ model: model.name, owner: data.o, version: data.ver }, result.status);
  }
  return outcome as FinishOutcome;
}

/** The model that an id leads to. Throws `prediction_not_found`. */
export async function modelOfId(deps: LookUpDependencies, id: string): Promise<KnownModel> {
  const tag = tagOfId(id);
  const model = tag === null ? null : await deps.directory.findByTag(tag);
  if (model === null) throw unknownId();
  return model;
}

/** The state that the parts in Redis amount to, by the clock. */
export function viewOf(
  model: KnownModel,
  id: string,
  pending: PendingPrediction & { data: PredictionJob },
  clock: Clock,
): PredictionView {
  const digestOf = (version: string) => model.versions.get(version)?.announcement.digest ?? "";
  return viewPending({ name: model.name, digestOf }, id, pending, clock.now());
}

/** Ends a prediction as canceled, wherever it is. Throws `state_conflict` where it was final before. */
export async function cancelPrediction(deps: LookUpDependencies, owner: string, id: string): Promise<string> {
  const { model, read } = await readOwned(deps, owner, id);
  if ("final" in read) throw finalAlready(read.final.status);
  const view = viewOf(model, id, read, deps.clock);
  const finishedAt = Math.max(deps.clock.now(), view.startedAt ?? view.createdAt);
  if (view.status === "expired") throw finalAlready((await lookUpPrediction(deps, owner, id)) && "expired");
  const json = predictionJson({ ...view, status: "canceled", finishedAt, queuePosition: null });
  const outcome = await endPrediction(
    deps,
    model,
    id,
    read.data,
    "any",
    { owner, status: "canceled", json },
    view.startedAt !== null,
  );
  if (outcome !== "written") throw finalAlready("final");
  logTogether(deps.log, "prediction canceled")({ prediction_id: id, model: model.name, request_id: read.data.r });
  return json;
}

const finalAlready = (status: string) => new ServiceError("state_conflict", `The prediction is already ${status}.`);
