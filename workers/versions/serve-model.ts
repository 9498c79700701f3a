import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import { beatEveryMs } from "@millrace/shared/models/beat-times.js";
import { createStatisticsTally, type StatisticsTally } from "@millrace/shared/predictions/statistics-tally.js";
import type { OnStored } from "@millrace/shared/predictions/storage-counter.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { type ModelKeys, modelKeys, noticeChannel } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { roomIn, type StoreMarker } from "@millrace/shared/redis/store-marker.js";
import { finishChunk } from "@millrace/shared/scripts/batches/finish-chunk.js";
import { beginBatch, takeChunk } from "@millrace/shared/scripts/batches/take-chunk.js";
import { isVersionKnown } from "@millrace/shared/scripts/models/announce.js";
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
import type { Beats } from "../monitoring/beats.js";
import type { LockLosses } from "../monitoring/lock-losses.js";
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
  close(): Promise<void>;
}

interface ServingOptions extends Pick<ProcessPredictionOptions, "onFinished"> {
  redis: RedisClient;
  dispatcher: Dispatcher;
  metrics: WorkerMetrics;
  log: Logger;
  config: WorkerConfig;
  lockLosses: LockLosses;
  beats: Pick<Beats, "set" | "stop">;
  workerId: string;
  clock: Clock;
  marker: Pick<StoreMarker, "complaint">;
  tracing: Tracing | null;
  /** Told of what is stored for an owner. */
  onStored: OnStored;
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
  const tally = createStatisticsTally(options.redis, options.clock);
  const { beats, clock, dispatcher, log, metrics, redis, workerId } = options;

  const beatFor = (name: string, { leaving, versions }: ServedModel) => {
    const serving = [...versions.keys()].filter((version) => !leaving.has(version));
    return beats.set(name, { serving, leaving: [...leaving] });
  };
  const tellBreakers = setInterval(async () => {
    for (const { breakers } of models.values()) await breakers.tellAgain();
  }, beatEveryMs);

  const open = (name: string): ServedModel => {
    const keys = modelKeys(options.config.keyPrefix, name);
    const versions = new Map<string, LoadedVersion>();
    const breakers = new Breakers({
      redis,
      keys,
      workerId,
      dispatcher,
      openMs: options.config.timing.breakerOpenMs,
      clock,
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
    clearInterval(tellBreakers);
    void beats.stop().catch(() => undefined);
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
  };
  return {
    add(loaded) {
      const model = models.get(loaded.model) ?? open(loaded.model);
      model.versions.set(loaded.version, loaded);
      model.breakers.add(loaded);
      model.leaving.delete(loaded.version);
      model.predictions.concurrency = concurrencyOf(model.versions.values());
      metrics.beginVersion(loaded.model, loaded.version);
      // Its announcement was its first beat.
      beatFor(loaded.model, model).catch((error: Error) => log.warn("heartbeat failed", { error }));
      metrics.modelLoaded.set({ model: loaded.model, version: loaded.version }, 1);
    },
    async leave(loaded) {
      const model = models.get(loaded.model) as ServedModel;
      model.leaving.add(loaded.version);
      await beatFor(loaded.model, model);
    },
    async remove(loaded) {
      const model = models.get(loaded.model) as ServedModel;
      if (model.versions.get(loaded.version) !== loaded) return;
      model.versions.delete(loaded.version);
      model.breakers.remove(loaded);
      model.leaving.delete(loaded.version);
      await beatFor(loaded.model, model);
      metrics.modelLoaded.remove({ model: loaded.model, version: loaded.version });
      metrics.joining.remove({ model: loaded.model, version: loaded.version });
    },
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
  const { clock, config, dispatcher, log, marker, metrics, onStored, redis, workerId } = options;
  const { keyPrefix, resultTtlSeconds } = config;
  const traceSettings = { keptSeconds: resultTtlSeconds, clock };
  const traced = options.tracing === null ? null : tracePredictions(options.tracing, redis, keys, traceSettings);
  const writer = createResultWriter(redis, keys, { keyPrefix, resultTtlSeconds, workerId, onStored, clock, log });
  const process = processPrediction({
    model,
    workerId,
    version: (name) => versions.get(name),
    isKnown: (version) => isVersionKnown(redis, keys, version, clock.now()),
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
    clock,
    log,
  });
  return createModelConsumer({
    model,
    keys,
    redis,
    concurrency: concurrencyOf([]),
    manifestOf: (version) => (versions.get(version) ?? [...versions.values()].at(-1))?.announcement.manifest,
    mayTake: () => Math.min(roomIn(marker), breakers.room()),
    onLocksLost: (count) => options.lockLosses("prediction", count),
    timing: config.timing,
    clock,
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
  const { clock, config, dispatcher, log, marker, metrics, redis, workerId } = options;
  const { keyPrefix } = config;
  const settings = { resultTtlMs: config.resultTtlSeconds * 1000, channelPrefix: noticeChannel(keyPrefix, "") };
  return createChunkConsumer({
    keys,
    redis,
    concurrency: 4 * config.slots,
    mayTake: () => Math.min(roomIn(marker), breakers.room()),
    onLocksLost: (count) => options.lockLosses("chunk", count),
    timing: config.timing,
    clock,
    log,
    process: processChunk({
      model,
      workerId,
      slots: config.slots,
      version: (name) => versions.get(name),
      isKnown: (version) => isVersionKnown(redis, keys, version, clock.now()),
      breaker: breakers.of,
      dispatcher,
      take: (batch, number) => takeChunk(redis, keys, batch, number),
      begin: (batch) => beginBatch(redis, keys, batch, clock.now()),
      finish: (finish) => finishChunk(redis, keys, finish, settings, clock.now()),
      onStored: options.onStored,
      notebook: createRunNotebook(redis, { ...keys, queue: keys.batchQueue }, keyPrefix, log),
      history: (id) => readHistory(redis, keys, id),
      metrics,
      clock,
      log,
    }),
  });
}
