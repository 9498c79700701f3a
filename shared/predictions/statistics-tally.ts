import type { RedisClient } from "../redis/connect-redis.js";
import type { ModelKeys } from "../redis/keys.js";
import type { Clock } from "../redis/store-clock.js";
import { flushRegularly } from "../service/regular-flush.js";

/** Kinds of counts of a version, over all processes since it was first served; durations in ns. */
export const tallied = ["success", "fail", "queue", "compute_infer", "cache_hit"] as const;
export type Tallied = (typeof tallied)[number];

/** Counts ends of predictions, and adds them up in Redis once a second; a killed process loses its last second. */
export interface StatisticsTally {
  /** Counts one of a kind with its duration. */
  count(keys: ModelKeys, version: string, kind: Tallied, ms: number): void;
  /** Counts a prediction's part of a run, in proportion to its rows, so that the parts of a run add up to one. */
  countRun(keys: ModelKeys, version: string, run: { batchRows: number; ownRows: number; ms: number }): void;
  /** Writes what is left. May be called twice. */
  close(): Promise<void>;
}

const flushEveryMs = 1000;
const nsOf = (ms: number): number => Math.round(ms * 1e6);

export function createStatisticsTally(redis: RedisClient, clock: Clock): StatisticsTally {
  let sums = new Map<string, Map<string, number>>();

  const add = (key: string, field: string, amount: number) => {
    const fields = sums.get(key) ?? new Map<string, number>();
    sums.set(key, fields.set(field, (fields.get(field) ?? 0) + amount));
  };
  const flush = async () => {
    const batch = sums;
    sums = new Map();
    await Promise.all(
      [...batch].map(async ([key, fields]) => {
        const pipeline = redis.pipeline();
        for (const [field, amount] of fields) pipeline.hincrbyfloat(key, field, amount);
        pipeline.hset(key, "last", clock.now());
        await pipeline.exec();
      }),
    );
  };
  // Counts are not worth a retry: those that Redis refuses are lost.
  const flushes = flushRegularly(flushEveryMs, () => flush().catch(() => undefined));
  return {
    count(keys, version, kind, ms) {
      add(keys.tally(version), `${kind}.count`, 1);
      add(keys.tally(version), `${kind}.ns`, nsOf(ms));
    },
    countRun(keys, version, { batchRows, ms, ownRows }) {
      const key = keys.tally(version);
      const share = batchRows === 0 ? 1 : ownRows / batchRows;
      add(key, "rows", ownRows);
      add(key, `batch.${batchRows}.count`, share);
      add(key, `batch.${batchRows}.ns`, share * nsOf(ms));
    },
    close: flushes.close,
  };
}

interface DurationStatistic {
  count: number;
  ns: number;
}

/** The counts of a version. */
export interface VersionStatistics {
  lastInferenceAt: number;
  /** Rows inferred, and number of runs. */
  rows: number;
  runs: number;
  kinds: Record<Tallied, DurationStatistic>;
  batches: (DurationStatistic & { batchRows: number })[];
}

/** Reads the counts of a version. */
export async function readStatistics(redis: RedisClient, keys: ModelKeys, version: string): Promise<VersionStatistics> {
  const fields = await redis.hgetall(keys.tally(version));
  const number = (field: string) => Math.round(Number(fields[field] ?? 0));
  const batches = Object.keys(fields)
    .flatMap((field) => /^batch\.(\d+)\.count$/.exec(field)?.[1] ?? [])
    .map((rows) => ({ batchRows: Number(rows), count: number(`batch.${rows}.count`), ns: number(`batch.${rows}.ns`) }))
    .sort((a, b) => a.batchRows - b.batchRows);
  const kinds = Object.fromEntries(
    tallied.map((kind) => [kind, { count: number(`${kind}.count`), ns: number(`${kind}.ns`) }]),
  ) as VersionStatistics["kinds"];
  return {
    lastInferenceAt: number("last"),
    rows: number("rows"),
    runs: batches.reduce((sum, { count }) => sum + count, 0),
    kinds,
    batches,
  };
}
