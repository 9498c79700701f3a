import { largestStepBytes, mostInStep, type PredictionJob } from "@millrace/shared/predictions/job.js";
import { metadataFields } from "@millrace/shared/predictions/metadata.js";
import { decodeResult } from "@millrace/shared/predictions/prediction.js";
import type { Redrive, RedrivePlace } from "@millrace/shared/predictions/redrive.js";
import { type Retryable, retryableOf } from "@millrace/shared/predictions/retryable.js";
import { copyBlob, dropBlob, unclaimedTtlMs } from "@millrace/shared/redis/blob.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { type ModelKeys, modelKeys, redriveKeys } from "@millrace/shared/redis/keys.js";
import { isMemoryTight } from "@millrace/shared/redis/redis-info.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { takeTokens } from "@millrace/shared/scripts/access/token-bucket.js";
import { isVersionKnown } from "@millrace/shared/scripts/models/announce.js";
import { isRefused } from "@millrace/shared/scripts/models/tell-breaker.js";
import { type Failure, failuresAfter } from "@millrace/shared/scripts/predictions/failures.js";
import {
  advanceRedrive,
  countRedriven,
  endRedrive,
  readRedrive,
} from "@millrace/shared/scripts/predictions/redrives.js";
import { type FailureRetry, retryFailures } from "@millrace/shared/scripts/predictions/retry-failures.js";
import type { FailureCode } from "@millrace/shared/service/failure-codes.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { DelayedError } from "../queue/bullmq.js";

/** The part of a BullMQ job that is used here. */
export interface RedriveJob {
  id?: string | undefined;
  moveToDelayed(timestamp: number, token?: string): Promise<unknown>;
}

const sliceMs = 500;
const fullDelayMs = 1000;
/** Longest arrears that a redrive makes up for at once, in ms; beyond that it is late instead of sudden. */
const maxArrearsMs = 1000;
/** Failures read at once; at least so many, because those that others have retried use nothing of the rate. */
const failuresAtOnce = 64;
const fewestAtOnce = 16;
const pagesOfSlice = 16;
const dayMs = 86_400_000;

/** Failures that a redrive may accept by now, counted from `fromMs` on, at one each `stepMs`. */
export function paceOf(
  { pacedUntil, plan: { rate } }: Pick<Redrive, "pacedUntil"> & { plan: { rate: number } },
  nowMs: number,
): { allowed: number; fromMs: number; stepMs: number } {
  const stepMs = 1000 / rate;
  const fromMs = Math.max(pacedUntil ?? nowMs - stepMs, nowMs - Math.max(maxArrearsMs, stepMs));
  // Half a step of tolerance, because the division rounds.
  return { allowed: Math.floor((nowMs - fromMs) / stepMs + 1e-6), fromMs, stepMs };
}

/** A page of failures of one model and code, the next of a redrive. */
interface Page {
  lot: number;
  model: string;
  keys: ModelKeys;
  code: FailureCode;
  failures: Failure[];
}

/**
 * The processor of a redrive's job: one slice, after which the job is delayed until the next. That a failure is
 * accepted anew only once does not depend on the redrive's progress; the accepting step ensures it.
 */
export function processRedrive(options: {
  redis: RedisClient;
  keyPrefix: string;
  metrics: Pick<WorkerMetrics, "redriven">;
  clock: Clock;
  log: Logger;
}) {
  const { clock, keyPrefix, log, metrics, redis } = options;
  const home = redriveKeys(keyPrefix);

  return async (job: RedriveJob, token: string, lock = () => token): Promise<string> => {
    const redrive = await readRedrive(redis, home, job.id as string);
    if (redrive === null || redrive.end !== null) return "ended before it was taken";
    const { allowed, fromMs, stepMs } = paceOf(redrive, clock.now());
    let { place } = redrive;
    let used = 0;
    let full = false;
    for (let pages = 0; !full; pages++) {
      const room = allowed - used;
      const page = await nextPage(redrive, place, Math.max(fewestAtOnce, Math.min(room, failuresAtOnce)));
      if (page === null) return end(redrive);
      if (room <= 0 || pages === pagesOfSlice) break;
      // There is no room for anybody; nobody is refused, so it goes on by itself.
      full = await isMemoryTight(redis, page.keys.base, redrive.plan.accept.memoryPart);
      if (full) break;
      const done = await retryPage(redrive, page, room);
      ({ full } = done);
      used += done.redriven;
      if (done.last !== null) place = { lot: page.lot, failedAt: done.last.failedAt, id: done.last.id };
      const pacedUntil = fromMs + used * stepMs;
      const { skipped } = done;
      const advance = { place, skipped, pacedUntil, nowMs: clock.now() };
      if (!(await advanceRedrive(redis, home, redrive.id, lock(), advance))) return "ended";
    }
    const nextAt = Math.max(clock.now() + (full ? fullDelayMs : sliceMs), fromMs + (used + 1) * stepMs);
    await job.moveToDelayed(Math.ceil(nextAt), lock());
    throw new DelayedError();
  };

  async function end(redrive: Redrive): Promise<string> {
    if (!(await endRedrive(redis, home, keyPrefix, redrive, "succeeded", clock.now()))) return "ended before";
    const redriven = await countRedriven(redis, keyPrefix, redrive);
    log.info("redrive ended", { redrive_id: redrive.id, request_id: redrive.plan.requestId, redriven });
    return "succeeded";
  }

  async function nextPage({ owner, plan }: Redrive, place: RedrivePlace | null, count: number): Promise<Page | null> {
    const begin = { failedAt: plan.from, id: "" };
    for (const [lot, { code, model }] of plan.lots.entries()) {
      if (place !== null && lot < place.lot) continue;
      const keys = modelKeys(keyPrefix, model);
      const after = place !== null && lot === place.lot ? place : begin;
      const failures = await failuresAfter(redis, keys.failures(owner, code), after, plan.to, count);
      if (failures.length > 0) return { lot, model, keys, code, failures };
    }
    return null;
  }

  /** Accepts up to `room` failures of a page anew while the queue has room; `last` is the last one handled. */
  async function retryPage(
    redrive: Redrive,
    page: Page,
    room: number,
  ): Promise<{ redriven: number; skipped: number; last: Failure | null; full: boolean }> {
    const { code, failures, keys, model } = page;
    const once = {
      counter: keys.redriven(redrive.id),
      keptSeconds: Math.ceil((2 * redrive.plan.accept.resultTtlMs + dayMs) / 1000),
    };
    const { limits, resultTtlMs, weight } = redrive.plan.accept;
    const settings = {
      limits,
      resultTtlMs,
      weightOf: () => weight,
      failures: keys.failures(redrive.owner, code),
      once,
    };
    const outcomes = new Map<string, string>();
    const { held, looked, retries: all } = await prepare(redrive, page, room);
    for (const step of inSteps(all)) {
      const retries = await takeRows(redrive, step);
      for (const { acceptance, failed } of step.slice(retries.length)) {
        outcomes.set(failed, "full");
        if (acceptance.pieces !== undefined) await dropBlob(redis, keys, acceptance.id);
      }
      if (retries.length === 0) continue;
      const answers = await retryFailures(redis, keys, retries, { ...settings, nowMs: clock.now() });
      for (const [i, { kind }] of answers.entries()) {
        const { acceptance, failed } = retries[i] as FailureRetry;
        outcomes.set(failed, kind);
        if (kind !== "queued" && acceptance.pieces !== undefined) await dropBlob(redis, keys, acceptance.id);
      }
    }
    const redriven = [...outcomes.values()].filter((kind) => kind === "queued").length;
    if (redriven > 0) {
      metrics.redriven.inc({ model }, redriven);
      log.info("failures redriven", { redrive_id: redrive.id, model, code, redriven });
    }
    const refused = failures.findIndex(({ id }) => outcomes.get(id) === "full");
    const settled = failures.slice(0, refused === -1 ? looked : refused);
    const skipped = settled.filter(({ id }) => outcomes.get(id) !== "queued").length;
    return { redriven, skipped, last: settled.at(-1) ?? null, full: held || refused !== -1 };
  }

  /** Takes their rows from what the redrive's key may have in a minute; resolves to those for which there were any. */
  async function takeRows({ plan }: Redrive, retries: FailureRetry[]): Promise<FailureRetry[]> {
    const { rows: bucket } = plan.accept;
    if (bucket === null) return retries;
    // More than a minute's worth in one prediction would never fit.
    const take = (cost: number) => takeTokens(redis, { ...bucket, cost: Math.min(cost, bucket.limit) });
    const costs = retries.map(({ acceptance }) => acceptance.rows ?? 1);
    const all = costs.reduce((sum, cost) => sum + cost, 0);
    if (all <= bucket.limit && (await take(all))) return retries;
    let taken = 0;
    while (taken < retries.length && (await take(costs[taken] as number))) taken += 1;
    return retries.slice(0, taken);
  }

  /**
   * The submissions in place of the first `room` failures that can be retried, and the number of failures read for
   * them; `held`: the next failure is of a version whose breaker refuses new requests.
   */
  async function prepare(
    redrive: Redrive,
    { failures, keys }: Page,
    room: number,
  ): Promise<{ retries: FailureRetry[]; looked: number; held: boolean }> {
    const texts = await redis.mget(failures.map(({ id }) => keys.result(id)));
    const states = new Map<string, Promise<"known" | "unknown" | "refused">>();
    const stateOf = async (version: string) => {
      if (!(await isVersionKnown(redis, keys, version, clock.now()))) return "unknown";
      return (await isRefused(redis, keys, version, clock.now())) ? "refused" : "known";
    };
    const retries: FailureRetry[] = [];
    for (const [i, { id: failed }] of failures.entries()) {
      if (retries.length === room) return { retries, looked: i, held: false };
      const text = texts[i];
      const result = text == null ? null : decodeResult(text);
      const retryable = result === null || result.owner !== redrive.owner ? null : retryableOf(result);
      if (retryable === null) continue;
      const { bytes, version } = retryable;
      const state = states.get(version) ?? stateOf(version);
      states.set(version, state);
      if ((await state) === "refused") return { retries, looked: i, held: true };
      if ((await state) === "unknown") continue;
      const id = newId(keys.tag);
      const pieces = bytes === undefined ? undefined : await copyBlob(redis, keys, failed, id, unclaimedTtlMs);
      if (pieces === 0) continue;
      retries.push({
        failed,
        acceptance: {
          id,
          owner: redrive.owner,
          dataJson: JSON.stringify(jobOf(redrive, failed, retryable)),
          delayMs: 0,
          priority: 0,
          watcher: null,
          dedup: null,
          idempotency: null,
          follower: null,
          rows: retryable.rows,
          ...(pieces !== undefined && { pieces, blobBytes: bytes as number }),
        },
      });
    }
    return { retries, looked: failures.length, held: false };
  }
}

const jobOf = (
  { owner, plan }: Redrive,
  failed: string,
  { bytes, form, input, metadata, rows, version }: Retryable,
): PredictionJob => ({
  v: 1,
  o: owner,
  ver: version,
  ...metadataFields(metadata),
  r: plan.requestId,
  ro: failed,
  f: form,
  x: input,
  b: bytes,
  ...(rows > 1 && { n: rows }),
});

function* inSteps(retries: readonly FailureRetry[]): Generator<FailureRetry[]> {
  let step: FailureRetry[] = [];
  let bytes = 0;
  for (const retry of retries) {
    step.push(retry);
    bytes += retry.acceptance.dataJson.length;
    if (bytes < largestStepBytes && step.length < mostInStep) continue;
    yield step;
    step = [];
    bytes = 0;
  }
  if (step.length > 0) yield step;
}
