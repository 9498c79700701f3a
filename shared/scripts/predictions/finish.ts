import { anyToken, type PredictionJob, unbegunToken } from "../../predictions/job.js";
import { encodeResult, type StoredResult, storedTensorsStart } from "../../predictions/prediction.js";
import { type OnStored, resultOverheadBytes } from "../../predictions/storage-counter.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import type { FailureCode } from "../../service/failure-codes.js";
import { type TellSettings, tellFields, tellFieldsOf, tellFollowers } from "../followers/tell.js";
import { defineScript } from "../lua/define-script.js";
import { answers, flag, number, optional, text } from "../lua/fields.js";

/**
 * The one step that makes predictions final. A result is written once and never changed. A worker writes it only while
 * it holds the job's lock, so that a worker resumed after a pause cannot overwrite anything. The same step notifies the
 * watchers, turns followers into deliveries, and turns the deduplication key from pending into the cache entry.
 */
const script = defineScript({
  name: "millraceFinish",
  file: "predictions/finish",
  keys: {
    running: text("Run notes by id."),
    deaths: text("Deaths of slot and worker together, by prediction."),
    cache: text("The hashes of cached outputs by age."),
    ending: text("Final predictions with followers who are still to be told."),
    joins: text("Submissions joined to each prediction."),
  },
  fields: {
    ...tellFields,
    queue: text("Prefix of the keys of the model's queue."),
    resultTtlSeconds: number("The result time."),
    cancelChannel: text("Channel to workers for predictions whose lock they have lost."),
    cacheEntries: number("Limit of the outputs in the cache."),
    worker: text("The worker of the runs; empty for an API."),
  },
  each: {
    id: text("The prediction's id."),
    token: text("The job's lock token, `unbegunToken` or `anyToken`."),
    result: text("The stored form of the result."),
    dedup: optional(text("The deduplication hash that it holds.")),
    cacheSeconds: number("Time to cache the output; 0 for not at all."),
    outputFrom: number("Place of the output in the result, in bytes from 0."),
    outputBytes: number("The output's length."),
    started: flag("Whether it has started."),
    blob: optional(text("Fate of an input that is a blob: `drop`, or `keep` for the result time.")),
    failures: optional(text("The key in which a failure is noted.")),
  },
  answer: answers<(FinishOutcome | "telling")[]>("The outcome of each prediction, in order; `telling`: see `tell.ts`."),
  whenFull: true,
});

const largestCachedBytes = 65_536;
const cacheEntries = 10_000;

export interface Finish {
  id: string;
  /** The job's lock token; `unbegun`: only if it does not run; `any`: in any state that is not final. */
  by: { token: string } | "unbegun" | "any";
  result: StoredResult;
  /** The deduplication hash that it holds; null for a prediction without deduplication. */
  dedup: string | null;
  /**
   * The output for the cache, and its lifetime; null for none. `packed`: the output is the result's tensors in base64,
   * not JSON.
   */
  cache: { outputJson: string; ttlSeconds: number; packed?: boolean } | null;
  /** Whether it has started, so that its start is to be reported. */
  started: boolean;
  /** What happens to an input that is a blob. */
  blob?: "drop" | "keep";
  /** The failure's code, for the index of its owner's failures. */
  failure?: FailureCode;
}

/**
 * `written`: final from now on. `final`: it was final before and stays unchanged. `lost`: the job's lock has passed to
 * another worker. `running`: it was to end before its start, but it runs. The last three write no result.
 */
export type FinishOutcome = "written" | "final" | "lost" | "running";

export interface FinishSettings extends TellSettings {
  resultTtlSeconds: number;
  cancelChannel: string;
  /** Told of the size of each result that is written. */
  onStored: OnStored;
  /** The worker of the runs; an API has none. */
  workerId?: string;
}

/** Makes predictions of one model final, all in one step; the outcomes are in the order of `finishes`. */
export async function finishPredictions(
  redis: RedisClient,
  keys: ModelKeys,
  finishes: readonly Finish[],
  settings: FinishSettings & { nowMs: number },
): Promise<FinishOutcome[]> {
  const { nowMs } = settings;
  const outcomes = await script.run(redis, {
    keys: { running: keys.running, deaths: keys.deaths, cache: keys.cache, ending: keys.ending, joins: keys.joins },
    fields: {
      ...tellFieldsOf(keys, settings, nowMs),
      queue: keys.queue,
      resultTtlSeconds: settings.resultTtlSeconds,
      cancelChannel: settings.cancelChannel,
      cacheEntries,
      worker: settings.workerId ?? "",
    },
    each: finishes.map(({ blob, by, cache, dedup, failure, id, result, started }) => {
      const text = encodeResult(result);
      const bytes = cache === null ? 0 : Buffer.byteLength(cache.outputJson);
      const ttl =
        cache === null || bytes > largestCachedBytes ? 0 : Math.min(cache.ttlSeconds, settings.resultTtlSeconds);
      return {
        id,
        token: by === "unbegun" ? unbegunToken : by === "any" ? anyToken : by.token,
        result: text,
        dedup,
        cacheSeconds: ttl,
        outputFrom: ttl === 0 ? 0 : cache?.packed ? storedTensorsStart.length : placeOfOutput(text),
        outputBytes: bytes,
        started,
        blob: blob ?? null,
        failures: failure === undefined ? null : keys.failures(result.owner, failure),
      };
    }),
  });
  return outcomes.map((outcome, i) => {
    const { cache, id, result } = finishes[i] as Finish;
    if (outcome === "written" || outcome === "telling") settings.onStored(result.owner, storedBytes(result, cache));
    if (outcome !== "telling") return outcome;
    // What this process does not come to, another does; see `workers/jobs/expire-overdue.ts`.
    tellFollowers(redis, keys, id, settings).catch(() => undefined);
    return "written";
  });
}

/** Size of a stored result, as far as it can be told without encoding it again. */
function storedBytes({ input, json, tensors }: StoredResult, cache: Finish["cache"]): number {
  const output = tensors === undefined ? 0 : "pack" in tensors ? tensors.pack.length : tensors.bytes;
  return resultOverheadBytes + json.length + (input?.length ?? 0) + output + (cache?.outputJson.length ?? 0);
}

/**
 * Before the output, the text holds nothing of the caller's except the form, so its byte offset equals its offset in
 * the JSON.
 */
function placeOfOutput(text: string): number {
  const mark = ',"output":';
  return Buffer.byteLength(text.slice(0, text.indexOf(mark, text.indexOf("\n")))) + mark.length;
}

/** The end of a prediction outside a run; its input is kept with it for a retry. */
export function endFinish(
  id: string,
  data: PredictionJob,
  by: "unbegun" | "any",
  ended: Pick<StoredResult, "owner" | "status" | "json">,
  started: boolean,
): Finish {
  const result: StoredResult = { ...ended, input: data.x };
  const finish: Finish = { id, by, result, dedup: data.d ?? null, cache: null, started };
  if (data.f !== undefined) result.form = data.f;
  if (data.n !== undefined) result.inputRows = data.n;
  if (data.b !== undefined) {
    result.inputBytes = data.b;
    finish.blob = "keep";
  }
  return finish;
}
