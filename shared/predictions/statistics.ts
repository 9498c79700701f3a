import type { RedisClient } from "../redis/connect-redis.js";
import { modelKeys } from "../redis/keys.js";
import type { Clock } from "../redis/store-clock.js";
import type { Logger } from "../service/log.js";
import { flushRegularly, type RegularFlush } from "../service/regular-flush.js";
import { isFinalStatus, type PredictionStatus, predictionStatuses, type Timings } from "./prediction.js";

/** Hours of statistics; they are kept by the hour. */
export const windowHours = 24;
const hourMs = 3_600_000;
const flushEveryMs = 1000;

export const stages = ["queue", "inference", "total"] as const;
export type Stage = (typeof stages)[number];
export const finalStatuses = predictionStatuses.filter(isFinalStatus);
export type CacheOutcome = "hit" | "join" | "miss";

/**
 * Latencies are counted in buckets that grow by a fifth, from 10 µs, so that a percentile is off by a tenth at the
 * most.
 */
const firstBucketMs = 0.01;
const growth = Math.log(1.2);
const bucketOf = (ms: number): number => Math.max(0, Math.ceil(Math.log(ms / firstBucketMs) / growth));
const middleOf = (bucket: number): number => firstBucketMs * Math.exp(growth * (bucket - 0.5));
const confidenceBuckets = 50;

/**
 * Counts ends of predictions, for all owners, in one hash a model and hour that all processes add to. Counts are
 * written once a second; a killed process loses its last second.
 */
export class StatisticsCounter {
  readonly #redis: RedisClient;
  readonly #keyPrefix: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #flushes: RegularFlush;
  #counts = new Map<string, Map<string, number>>();

  constructor(redis: RedisClient, keyPrefix: string, clock: Clock, log: Logger) {
    this.#redis = redis;
    this.#keyPrefix = keyPrefix;
    this.#clock = clock;
    this.#log = log;
    this.#flushes = flushRegularly(flushEveryMs, () => this.#flush());
  }

  /** A prediction that has become final. */
  ended(of: Counted, status: PredictionStatus, timings: Timings | null = null, confidence = Number.NaN): void {
    this.#add(of, status, 1);
    if (timings !== null) {
      this.#add(of, `queue:${bucketOf(timings.queueMs)}`, 1);
      this.#add(of, `inference:${bucketOf(timings.inferenceMs)}`, 1);
      this.#add(of, `total:${bucketOf(timings.totalMs)}`, 1);
      this.#add(of, "total-us", Math.round(timings.totalMs * 1000));
    }
    if (!Number.isNaN(confidence)) {
      this.#add(of, `confidence:${Math.min(confidenceBuckets - 1, Math.floor(confidence * confidenceBuckets))}`, 1);
      this.#add(of, "confidence-millionths", Math.round(confidence * 1e6));
    }
  }

  /** A submission that the cache could answer, and the outcome. */
  cache(of: Counted, outcome: CacheOutcome): void {
    this.#add(of, outcome, 1);
  }

  /** Writes what is left. May be called twice. */
  close(): Promise<void> {
    return this.#flushes.close();
  }

  #add({ model, owner, version }: Counted, what: string, amount: number): void {
    const counts = this.#counts.get(model) ?? new Map<string, number>();
    this.#counts.set(model, counts);
    const field = `${owner}|${version}|${what}`;
    counts.set(field, (counts.get(field) ?? 0) + amount);
  }

  async #flush(): Promise<void> {
    const all = this.#counts;
    this.#counts = new Map();
    const hour = Math.floor(this.#clock.now() / hourMs);
    for (const [model, counts] of all) {
      const key = modelKeys(this.#keyPrefix, model).statistics(hour);
      const pipeline = this.#redis.multi();
      for (const [field, amount] of counts) pipeline.hincrby(key, field, amount);
      try {
        await pipeline.expire(key, (windowHours + 1) * 3600).exec();
      } catch (error) {
        // Whether they were written is not known; a gap misleads less than counting twice.
        this.#log.warn("statistics not written", { model, error });
      }
    }
  }
}

/** Owner, model and version of a count. */
export interface Counted {
  model: string;
  owner: string;
  version: string;
}

/** Statistics of one version, or of several together. */
export interface Statistics {
  counts: Record<string, number>;
  latencyMs: Record<Stage, { p50: number; p95: number; p99: number }> | null;
  /** Mean total latency of succeeded predictions. */
  meanMs: number | null;
  confidence: { mean: number; p50: number; p05: number } | null;
  cache: { hits: number; joins: number; misses: number; hitRate: number | null };
  /** The share of failed ones among those that succeeded or failed. */
  errorRate: number | null;
}

/** Reads the sums of a model's last hours, of one owner or of all (null). */
export async function readStatistics(
  redis: RedisClient,
  keyPrefix: string,
  model: string,
  owner: string | null,
  nowMs: number,
): Promise<{ versions: Map<string, Statistics>; all: Statistics }> {
  const keys = modelKeys(keyPrefix, model);
  const now = Math.floor(nowMs / hourMs);
  const hours = Array.from({ length: windowHours }, (_, i) => now - i);
  const hashes = await Promise.all(hours.map((hour) => redis.hgetall(keys.statistics(hour))));
  const sums = new Map<string, Map<string, number>>();
  const all = new Map<string, number>();
  const add = (counts: Map<string, number>, what: string, amount: number) =>
    counts.set(what, (counts.get(what) ?? 0) + amount);
  for (const [field, text] of hashes.flatMap((hash) => Object.entries(hash))) {
    const [whose = "", version = "", what = ""] = field.split("|");
    if (owner !== null && whose !== owner) continue;
    const counts = sums.get(version) ?? new Map<string, number>();
    sums.set(version, counts);
    add(counts, what, Number(text));
    add(all, what, Number(text));
  }
  const versions = [...sums].sort(([a], [b]) => Number(a) - Number(b));
  return { versions: new Map(versions.map(([version, counts]) => [version, summarize(counts)])), all: summarize(all) };
}

function summarize(counts: ReadonlyMap<string, number>): Statistics {
  const read = (what: string) => counts.get(what) ?? 0;
  const { failed = 0, succeeded = 0, ...rest } = Object.fromEntries(finalStatuses.map((name) => [name, read(name)]));
  const [queue, inference, total] = stages.map((stage) => histogramOf(counts, stage));
  const percentiles = (histogram: Histogram) => ({
    p50: middleOf(percentile(histogram, 0.5)),
    p95: middleOf(percentile(histogram, 0.95)),
    p99: middleOf(percentile(histogram, 0.99)),
  });
  const confidence = histogramOf(counts, "confidence");
  const sure = (share: number) => (percentile(confidence, share) + 0.5) / confidenceBuckets;
  const [hits, joins, misses] = [read("hit"), read("join"), read("miss")];
  const timed = (total as Histogram).sum;
  return {
    counts: { succeeded, failed, ...rest },
    latencyMs:
      timed === 0
        ? null
        : {
            queue: percentiles(queue as Histogram),
            inference: percentiles(inference as Histogram),
            total: percentiles(total as Histogram),
          },
    meanMs: timed === 0 ? null : read("total-us") / 1000 / timed,
    confidence:
      confidence.sum === 0
        ? null
        : { mean: read("confidence-millionths") / 1e6 / confidence.sum, p50: sure(0.5), p05: sure(0.05) },
    cache: { hits, joins, misses, hitRate: hits + misses === 0 ? null : hits / (hits + misses) },
    errorRate: succeeded + failed === 0 ? null : failed / (succeeded + failed),
  };
}

interface Histogram {
  buckets: [bucket: number, count: number][];
  sum: number;
}

function histogramOf(counts: ReadonlyMap<string, number>, name: string): Histogram {
  const buckets: [number, number][] = [];
  for (const [what, count] of counts) {
    if (what.startsWith(`${name}:`)) buckets.push([Number(what.slice(name.length + 1)), count]);
  }
  buckets.sort(([a], [b]) => a - b);
  return { buckets, sum: buckets.reduce((sum, [, count]) => sum + count, 0) };
}

/** The first bucket at which the counts reach a share of the total. */
function percentile({ buckets, sum }: Histogram, share: number): number {
  let left = Math.max(1, Math.ceil(sum * share));
  for (const [bucket, count] of buckets) {
    left -= count;
    if (left <= 0) return bucket;
  }
  return 0;
}
