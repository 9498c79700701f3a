import { beatEveryMs } from "@millrace/shared/announcement.js";
import type { WorkerConfig } from "@millrace/shared/config.js";
import type { RedisClient } from "@millrace/shared/connect-redis.js";
import { modelKeys, noticeChannel } from "@millrace/shared/keys.js";
import type { Logger } from "@millrace/shared/log.js";
import { beat, endBeat } from "@millrace/shared/scripts/announce.js";
import { finishChunk, takeChunk } from "@millrace/shared/scripts/batches.js";
import { readHistory } from "@millrace/shared/scripts/run-notes.js";
import { createStatisticsTally, type StatisticsTally } from "@millrace/shared/statistics-tally.js";
import type { Tracing } from "@millrace/shared/tracing.js";
import { createBlobKeeper } from "./blob-keeper.js";
import type { ByteBudget } from "./byte-budget.js";
import { createChunkConsumer } from "./chunk-consumer.js";
import type { Dispatcher } from "./dispatcher.js";
import type { LoadedVersion } from "./load-versions.js";
import type { WorkerMetrics } from "./metrics.js";
import { createModelConsumer } from "./model-consumer.js";
import { processChunk } from "./process-chunk.js";
import { processPrediction } from "./process-prediction.js";
import { createResultWriter } from "./result-writer.js";
import { createRunNotebook } from "./run-notebook.js";
import { tracePredictions } from "./trace-predictions.js";

export interface Serving {
  /** Milliseconds since Redis last took this worker's beats. */
  lastBeatAgeMs(): number;
  close(): Promise<void>;
}

interface ServingOptions {
  loaded: readonly LoadedVersion[];
  redis: RedisClient;
  dispatcher: Dispatcher;
  metrics: WorkerMetrics;
  log: Logger;
  config: WorkerConfig;
  workerId: string;
  tracing: Tracing | null;
  /** What this worker may hold of large inputs at a time. */
  blobMemory: ByteBudget;
  /** Ends the slots with whatever still runs in them. */
  endSlots(): void;
}

/** Jobs that one model holds at once: enough to fill a run on every slot and the next one, and never a flood. */
const concurrencyOf = (maxBatchRows: number): number => Math.max(16, Math.min(256, 2 * maxBatchRows));

/** Takes jobs of every loaded model and beats for them until closed. */
export function startServing(options: ServingOptions): Serving {
  const byModel = new Map<string, LoadedVersion[]>();
  for (const version of options.loaded) byModel.set(version.model, [...(byModel.get(version.model) ?? []), version]);
  const tally = createStatisticsTally(options.redis);
  const models = [...byModel].map(([model, versions]) => serveModel(options, tally, model, versions));
  const consumers = [
    ...models.map(({ consumer }) => consumer),
    ...[...byModel].map(([model, versions]) => serveBatches(options, model, versions)),
  ];
  const { dispatcher, log, redis, workerId } = options;
  let lastBeatAt = Date.now();

  const beatAll = async () => {
    try {
      for (const { keys, versions } of models) {
        await beat(
          redis,
          keys,
          workerId,
          versions.map(({ version }) => version),
        );
      }
      lastBeatAt = Date.now();
    } catch (error) {
      log.warn("beat failed", { error });
    }
  };
  const beats = setInterval(beatAll, beatEveryMs);
  for (const consumer of consumers) consumer.run().catch((error: Error) => log.error("queue stopped", { error }));

  let closing: Promise<void> | null = null;
  const closeAll = async () => {
    clearInterval(beats);
    await Promise.all(consumers.map((consumer) => consumer.pause(true)));
    // What waits for a slot goes back now; what runs may finish within the grace. Closing the consumers waits for
    // every job to be finished or given back; when the grace is over, the slots go, which releases the rest.
    const drained = dispatcher.drain();
    const grace = setTimeout(() => options.endSlots(), options.config.shutdownGraceMs);
    await drained;
    clearTimeout(grace);
    await Promise.all(consumers.map((consumer) => consumer.close()));
    await tally.close();
    await Promise.allSettled(
      models.map(({ keys, versions }) =>
        endBeat(
          redis,
          keys,
          workerId,
          versions.map(({ version }) => version),
        ),
      ),
    );
  };
  return {
    lastBeatAgeMs: () => Date.now() - lastBeatAt,
    close: () => {
      closing ??= closeAll();
      return closing;
    },
  };
}

function serveModel(
  options: ServingOptions,
  tally: StatisticsTally,
  model: string,
  versions: readonly LoadedVersion[],
) {
  const { config, dispatcher, log, metrics, redis, workerId } = options;
  const keys = modelKeys(config.keyPrefix, model);
  const byVersion = new Map(versions.map((version) => [version.version, version]));
  for (const { version } of versions) metrics.modelLoaded.set({ model, version }, 1);
  const { keyPrefix, resultTtlSeconds } = config;
  const newest = versions.at(-1) as LoadedVersion;
  const traced = options.tracing === null ? null : tracePredictions(options.tracing, redis, keys, resultTtlSeconds);
  const writer = createResultWriter(redis, keys, { keyPrefix, resultTtlSeconds, workerId, log });
  const process = processPrediction({
    workerId,
    version: (name) => byVersion.get(name),
    dispatcher,
    writer: traced?.writer(writer) ?? writer,
    notebook: createRunNotebook(redis, keys, keyPrefix, log),
    history: (id) => readHistory(redis, keys, id),
    blobs: createBlobKeeper({ redis, keys, memory: options.blobMemory, resultTtlSeconds, log }),
    tally(version, rows, totalMs, timings) {
      tally.count(keys, version, timings === null ? "fail" : "success", totalMs);
      if (timings === null) return;
      tally.count(keys, version, "queue", timings.queueMs);
      tally.count(keys, version, "compute_infer", timings.inferenceMs);
      tally.countRun(keys, version, { batchRows: timings.batchRows, ownRows: rows, ms: timings.inferenceMs });
    },
    metrics,
    log,
  });
  const consumer = createModelConsumer({
    model,
    keys,
    redis,
    concurrency: concurrencyOf(Math.max(...versions.map(({ lane }) => lane.maxBatchRows))),
    attempts: newest.attempts,
    backoffMs: newest.announcement.manifest.backoff_ms,
    log,
    process: traced?.process(process) ?? process,
  });
  return { consumer, keys, versions };
}

/** Takes the model's batch chunks: for each slot one that runs, and three that are read ahead or written down. */
function serveBatches(options: ServingOptions, model: string, versions: readonly LoadedVersion[]) {
  const { config, dispatcher, log, metrics, redis, workerId } = options;
  const keys = modelKeys(config.keyPrefix, model);
  const { keyPrefix } = config;
  const byVersion = new Map(versions.map((version) => [version.version, version]));
  const settings = { resultTtlMs: config.resultTtlSeconds * 1000, channelPrefix: noticeChannel(keyPrefix, "") };
  return createChunkConsumer({
    keys,
    redis,
    concurrency: 4 * config.slots,
    log,
    process: processChunk({
      model,
      workerId,
      version: (name) => byVersion.get(name),
      dispatcher,
      take: (batch, number) => takeChunk(redis, keys, batch, number),
      finish: (finish) => finishChunk(redis, keys, finish, settings),
      notebook: createRunNotebook(redis, { ...keys, queue: keys.batchQueue }, keyPrefix, log),
      history: (id) => readHistory(redis, keys, id),
      metrics,
      log,
    }),
  });
}
