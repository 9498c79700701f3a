import { canonicalJson } from "@millrace/shared/predictions/canonical-json.js";
import { type RedrivePlan, redriveJson } from "@millrace/shared/predictions/redrive.js";
import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { redriveKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { countFailures } from "@millrace/shared/scripts/predictions/failures.js";
import {
  countRedriven,
  readRedrive,
  makeRedrive as storeRedrive,
} from "@millrace/shared/scripts/predictions/redrives.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { z } from "zod";
import { type Caller, modelsOf } from "../access/authenticate.js";
import type { RateLimits } from "../access/rate-limits.js";
import { assertRoom } from "../admission/new-work.js";
import type { OwnerStorage } from "../admission/owner-storage.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import { quote } from "../http/quote.js";
import { invalidRequest } from "../http/read-json.js";
import type { KnownModel, ModelDirectory } from "../models/model-directory.js";
import { unknownModel } from "../models/unknown-model.js";
import { usedForAnother } from "./submission.js";

/** Where none is asked for. */
export const usualRate = 10;

const time = () => z.iso.datetime({ offset: true, error: "must be an RFC 3339 time" });

const filterFields = {
  model: z.string().max(256).optional(),
  code: z.enum(failureCodes).optional(),
  failed_after: time().optional(),
  failed_before: time().optional(),
  rate: z.number().min(0.01).max(1000).optional(),
};

const inOrder = (
  {
    failed_after: after,
    failed_before: before,
  }: { failed_after?: string | undefined; failed_before?: string | undefined },
  context: z.RefinementCtx,
): void => {
  if (after !== undefined && before !== undefined && Date.parse(after) >= Date.parse(before)) {
    context.addIssue({ code: "custom", path: ["failed_before"], message: "must be later than failed_after" });
  }
};

/** Which failures of one owner, and how many of them a second: all that a key without `operate` may say. */
export const redriveFilterSchema = z.strictObject(filterFields).superRefine(inOrder);

/** The body of `POST /v1/failures/redrive`. */
export const redriveRequestSchema = z
  .strictObject({
    owner: z
      .string()
      .regex(/^(?:\*|[A-Za-z0-9_.@-]{1,64})$/, "must be the name of an owner, or * for all")
      .optional()
      .meta({ description: "Of another owner, or `*` for all: with the scope `operate`" }),
    ...filterFields,
  })
  .superRefine(inOrder)
  .meta({ id: "RedriveRequest" });

export type RedriveRequest = z.infer<typeof redriveRequestSchema>;
export type RedriveFilter = z.infer<typeof redriveFilterSchema>;

export interface MakeRedriveDependencies {
  redis: RedisClient;
  confirmed: ConfirmedWrite;
  directory: ModelDirectory;
  keyPrefix: string;
  resultTtlSeconds: number;
  acceptSettings: AcceptSettings;
  limits: RateLimits | null;
  memory: RedisMemory;
  storage: OwnerStorage;
  clock: Clock;
  log: Logger;
}

/** Redrives of an owner that have not ended: they share the workers' places with those of all others. */
const mostOpen = 10;

/**
 * Makes a redrive of the caller's failures that fit, or leads to the one that the same key made before. What fails from
 * now on is not among them, or it would never end.
 */
export async function makeRedrive(
  deps: MakeRedriveDependencies,
  caller: Caller,
  asked: RedriveFilter,
  requestId: string,
  idempotencyKey: string | null,
): Promise<{ id: string; json: string; replayed: boolean }> {
  const { owner } = caller;
  const globs = modelsOf(caller, "predict", "operate");
  const named = await modelsNamed(deps.directory, asked.model ?? null);
  const models = globs === null ? named : named.filter(({ name }) => fitsGlob(name, globs));
  if (asked.model !== undefined && models.length === 0) {
    const detail = `The scope of the key does not cover the model ${quote(asked.model)}.`;
    throw new ServiceError("forbidden", detail);
  }
  for (const model of models) assertRoom(deps, owner, model);
  // A second's share of what the key may have in a minute.
  const mostRate = Math.floor(((deps.limits?.mostRows ?? Number.POSITIVE_INFINITY) / 60) * 1000) / 1000;
  const rate = asked.rate ?? Math.min(usualRate, mostRate);
  if (rate > mostRate) {
    throw invalidRequest([{ detail: `this key may have ${mostRate} rows a second at the most`, pointer: "/rate" }]);
  }
  const createdAt = deps.clock.now();
  const { failed_after: after, failed_before: before } = asked;
  const from = Math.max(
    createdAt - deps.resultTtlSeconds * 1000 + 1,
    after === undefined ? Number.NEGATIVE_INFINITY : Date.parse(after) + 1,
  );
  const to = Math.min(createdAt, before === undefined ? Number.POSITIVE_INFINITY : Date.parse(before) - 1);
  const codes = asked.code === undefined ? failureCodes : [asked.code];
  const counted = await Promise.all(
    models.flatMap(({ keys, name }) =>
      codes.map(async (code) => ({
        lot: { model: name, code },
        count: await countFailures(deps.redis, keys, owner, code, { from, to }),
      })),
    ),
  );
  const found = counted.filter(({ count }) => count > 0);
  const { limits, resultTtlMs, weightOf } = deps.acceptSettings;
  const plan: RedrivePlan = {
    v: 1,
    filter: {
      model: asked.model ?? null,
      code: asked.code ?? null,
      failed_after: after ?? null,
      failed_before: before ?? null,
    },
    from,
    to,
    lots: found.map(({ lot }) => lot),
    total: found.reduce((sum, { count }) => sum + count, 0),
    rate,
    accept: {
      ...{ limits, resultTtlMs, weight: weightOf?.(owner) ?? 1, memoryPart: deps.memory.part },
      rows: deps.limits?.rowsBucket(caller.keyId) ?? null,
    },
    requestId,
  };
  const home = redriveKeys(deps.keyPrefix);
  const id = newId(home.tag);
  const redrive = { id, owner, plan, createdAt };
  // The rate of one is held to what the key may have; ten of them would not be.
  const openAtMost = Number.isFinite(mostRate) ? 1 : mostOpen;
  const idempotency =
    idempotencyKey === null ? null : { key: idempotencyKey, bodyHash: digestOf("redrive", canonicalJson(asked)) };
  const outcome = await deps.confirmed(home, (redis) => storeRedrive(redis, home, redrive, openAtMost, idempotency));
  if (outcome.kind === "mismatch") throw usedForAnother();
  if (outcome.kind === "too many") {
    const detail = "You have reached the limit of concurrent redrives. Cancel one, or wait until one ends.";
    throw new ServiceError("state_conflict", detail);
  }
  if (outcome.kind === "replayed") {
    const before = await readRedrive(deps.redis, home, outcome.id);
    if (before === null)
      throw new ServiceError("redrive_not_found", "The redrive of this Idempotency-Key has expired.");
    const json = redriveJson(before, await countRedriven(deps.redis, deps.keyPrefix, before));
    return { id: outcome.id, json, replayed: true };
  }
  deps.log.info("redrive accepted", { redrive_id: id, request_id: requestId, failures: plan.total });
  const fresh = { startedAt: null, endedAt: null, end: null, skipped: 0, place: null, pacedUntil: null };
  return { id, json: redriveJson({ ...redrive, ...fresh }, 0), replayed: false };
}

/** The model of that name, or all that were ever announced. Throws `model_not_found`. */
export async function modelsNamed(directory: ModelDirectory, name: string | null): Promise<KnownModel[]> {
  if (name === null) return directory.allIncludingRetired();
  const model = await directory.find(name);
  if (model === null) throw unknownModel(name);
  return [model];
}
