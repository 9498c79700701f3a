import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import { beatEveryMs } from "@millrace/shared/models/announcement.js";
import { createStatisticsTally, type StatisticsTally } from "@millrace/shared/predictions/statistics-tally.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { type ModelKeys, modelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import { finishChunk } from "@millrace/shared/scripts/batches/finish-chunk.js";
import { beginBatch, takeChunk } from "@millrace/shared/scripts/batches/take-chunk.js";
import { beat, endBeat, isVersionKnown } from "@millrace/shared/scripts/models/announce.js";
import { readHistory } from "@millrace/shared/scripts/predictions/run-notes.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import type { Worker } from "bullmq";
import { createBlobKeeper } from "../jobs/blob-keeper.js";
import type { ByteBudget } from "../jobs/byte-budget.js";
import { createChunkConsumer } from "../jobs/chunk-consumer.js";
import { createResultWriter } from "../jobs/finish-prediction.js";
import { createModelConsumer } from "../jobs/model-consumer.js";
import { processChunk } from "../jobs/process-chunk.js";
import { type ProcessPredictionOptions, processPrediction } from "../jobs/process-prediction.js";
import { createRunNotebook } from "../jobs/run-notebook.js";
import { tracePredictions } from "../jobs/trace-predictions.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import type { Dispatcher } from "../runs/dispatcher.js";
import { Breakers } from "./breakers.js";
import type { LoadedVersion } from "./load-versions.js";

export interface Serving {
  /** Takes jobs of a version from now on, in place of one of the same name. */
  add(version: LoadedVersion): void;
  /** Stops the heartbeats for a version, but still runs its jobs. */
  leave(version: LoadedVersion): Promise<void>;
  /** Takes no further jobs of a version. */
  remove(version: LoadedVersion): Promise<void>;
  /** Milliseconds since Redis last accepted this worker's heartbeats. */
  lastBeatAgeMs(): number;
  close(): Promise<void>;
}

interface ServingOptions extends Pick<ProcessPredictionOptions, "onFinished"> {
  redis: RedisClient;
  dispatcher: Dispatcher;
  metrics: WorkerMetrics;
  log: Logger;
  config: WorkerConfig;
  workerId: string;
  tracing: Tracing | null;
  /** Limit of large inputs held at a time. */
  blobMemory: ByteBudget;
  /** Ends the slots with their runs. */
  endSlots(): void;
}

interface ServedModel {
  keys: ModelKeys;
  versions: Map<string, LoadedVersion>;
  leaving: Set<string>;
  breakers: Breakers;
  predictions: Worker<unknown, string>;
  batches: Worker;
}

/** Most jobs that one model holds at once: enough to fill a run on every slot and the next one. */
const concurrencyOf = (versions: Iterable<LoadedVersion>): number => {
  const rows = Math.max(1, ...[...versions].map(({ runQueue }) => runQueue.maxBatchRows));
  return Math.max(16, Math.min(256, 2 * rows));
};

/**
 * Takes jobs of every added version and writes its heartbeats until closed. A model without a version is still listened
 * to, so that its accepted predictions end.
 */
export function startServing(options: ServingOptions): Serving {
  const models = new Map<string, ServedModel>();
  const tally = createStatisticsTally(options.redis);
  const { dispatcher, log, metrics, redis, workerId } = options;
  let lastBeatAt = Date.now();

  const beatFor = ({ keys, leaving, versions }: ServedModel) => {
    const serving = [...versions.keys()].filter((version) => !leaving.has(version));
    return beat(redis, keys, workerId, { serving, leaving: [...leaving] });
  };
  const beatAll = async () => {
    try {
      for (const model of models.values()) {
        await beatFor(model);
        await model.breakers.tellAgain();
      }
      lastBeatAt = Date.now();
    } catch (error) {
      log.warn("heartbeat failed", { error });
    }
  };
  const beats = setInterval(beatAll, beatEveryMs);

  const open = (name: string): ServedModel => {
    const keys = modelKeys(options.config.keyPrefix, name);
    const versions = new Map<string, LoadedVersion>();
    const breakers = new Breakers({
      redis,
      keys,
      workerId,
      dispatcher,
      openMs: options.config.timing.breakerOpenMs,
      log,
    });
    const predictions = servePredictions(options, tally, name, keys, versions, breakers);
    const batches = serveBatches(options, name, keys, versions, breakers);
    const model: ServedModel = { keys, versions, leaving: new Set(), breakers, predictions, batches };
    models.set(name, model);
    for (const consumer of [predictions, batches]) {
      consumer.run().catch((error: Error) => log.error("queue stopped", { error }));
    }
    return model;
  };

  let closing: Promise<void> | null = null;
  const closeAll = async () => {
    clearInterval(beats);
    const all = [...models.values()];
    const consumers = all.flatMap(({ batches, predictions }) => [predictions, batches]);
    await Promise.all(consumers.map((consumer) => consumer.pause(true)));
    // Waiting works go back now; runs may finish within the grace. Closing the consumers waits for every job to be
    // finished or given back; after the grace the slots end, which releases the rest.
    const drained = dispatcher.drain();
    const grace = setTimeout(() => options.endSlots(), options.config.shutdownGraceMs);
    await drained;
    clearTimeout(grace);
    await Promise.all(consumers.map((consumer) => consumer.close()));
    for (const { breakers } of all) breakers.close();
    await tally.close();
    await Promise.allSettled(all.map(({ keys, versions }) => endBeat(redis, keys, workerId, [...versions.keys()])));
  };
  return {
    add(loaded) {
      const model = models.get(loaded.model) ?? open(loaded.model);
      model.versions.set(loaded.version, loaded);
      model.breakers.add(loaded);
      model.leaving.delete(loaded.version);
      model.predictions.concurrency = concurrencyOf(model.versions.values());
      metrics.modelLoaded.set({ model: loaded.model, version: loaded.version }, 1);
    },
    async leave(loaded) {
      const model = models.get(loaded.model) as ServedModel;
      model.leaving.add(loaded.version);
      await endBeat(redis, model.keys, workerId, [loaded.version]);
      await beatFor(model);
    },
    async remove(loaded) {
      const model = models.get(loaded.model) as ServedModel;
      if (model.versions.get(loaded.version) !== loaded) return;
      model.versions.delete(loaded.version);
      model.breakers.remove(loaded);
      model.leaving.delete(loaded.version);
      await endBeat(redis, model.keys, workerId, [loaded.version]);
      metrics.modelLoaded.remove({ model: loaded.model, version: loaded.version });
      metrics.joining.remove({ model: loaded.model, version: loaded.version });
    },
    lastBeatAgeMs: () => Date.now() - lastBeatAt,
    close: () => {
      closing ??= closeAll();
      return closing;
    },
  };
}

function servePredictions(
  options: ServingOptions,
  tally: StatisticsTally,
  model: string,
  keys: ModelKeys,
  versions: ReadonlyMap<string, LoadedVersion>,
  breakers: Breakers,
): Worker<unknown, string> {
  const { config, dispatcher, log, metrics, redis, workerId } = options;
  const { keyPrefix, resultTtlSeconds } = config;
  const traced = options.tracing === null ? null : tracePredictions(options.tracing, redis, keys, resultTtlSeconds);
  const writer = createResultWriter(redis, keys, { keyPrefix, resultTtlSeconds, workerId, log });
  const process = processPrediction({
    model,
    workerId,
    version: (name) => versions.get(name),
    isKnown: (version) => isVersionKnown(redis, keys, version),
    breaker: breakers.of,
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
    onFinished: options.onFinished,
    metrics,
    log,
  });
  return createModelConsumer({
    model,
    keys,
    redis,
    concurrency: concurrencyOf([]),
    manifestOf: (version) => (versions.get(version) ?? [...versions.values()].at(-1))?.announcement.manifest,
    mayTake: breakers.room,
    timing: config.timing,
    log,
    process: traced?.process(process) ?? process,
  });
}

/** Takes the model's batch chunks: for each slot one that runs, and three that are being read or written. */
function serveBatches(
  options: ServingOptions,
  model: string,
  keys: ModelKeys,
  versions: ReadonlyMap<string, LoadedVersion>,
  breakers: Breakers,
): Worker {
  const { config, dispatcher, log, metrics, redis, workerId } = options;
  const { keyPrefix } = config;
  const settings = { resultTtlMs: config.resultTtlSeconds * 1000, channelPrefix: noticeChannel(keyPrefix, "") };
  return createChunkConsumer({
    keys,
    redis,
    concurrency: 4 * config.slots,
    mayTake: breakers.room,
    timing: config.timing,
    log,
    process: processChunk({
      model,
      workerId,
      slots: config.slots,
      version: (name) => versions.get(name),
      isKnown: (version) => isVersionKnown(redis, keys, version),
      breaker: breakers.of,
      dispatcher,
      take: (batch, number) => takeChunk(redis, keys, batch, number),
      begin: (batch) => beginBatch(redis, keys, batch),
      finish: (finish) => finishChunk(redis, keys, finish, settings),
      notebook: createRunNotebook(redis, { ...keys, queue: keys.batchQueue }, keyPrefix, log),
      history: (id) => readHistory(redis, keys, id),
      metrics,
      log,
    }),
  });
}
