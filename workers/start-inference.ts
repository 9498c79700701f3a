import { ConfigError } from "@millrace/shared/config/common-config.js";
import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import type { StatisticsCounter } from "@millrace/shared/predictions/statistics.js";
import type { OnStored } from "@millrace/shared/predictions/storage-counter.js";
import { closeRedis, openSubscriber, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import { createByteBudget } from "./jobs/byte-budget.js";
import { hearCancellations } from "./jobs/cancellations.js";
import type { FinishedPrediction } from "./jobs/finish-prediction.js";
import { Beats } from "./monitoring/beats.js";
import type { LockLosses } from "./monitoring/lock-losses.js";
import type { WorkerMetrics } from "./monitoring/metrics.js";
import { Dispatcher } from "./runs/dispatcher.js";
import { SlotPool } from "./runs/slot-pool.js";
import { DriftCounter } from "./versions/drift-counter.js";
import { reportStates, type StateReports } from "./versions/report-states.js";
import { startServing } from "./versions/serve-model.js";
import { Shadows } from "./versions/shadows.js";
import { VersionKeeper } from "./versions/version-keeper.js";

/** Bytes of large inputs that a worker holds at a time. Jobs with further ones wait, taken but not begun. */
const blobMemoryBytes = 256 * 1024 * 1024;

export interface RunningInference {
  /** Whether it takes jobs, and the state of its slots and models. */
  state(): { ready: boolean; [detail: string]: unknown };
  /** Lets runs end within the grace and gives back the other jobs. May be called twice. */
  close(): Promise<void>;
}

/**
 * Starts the inference role: slots first, because they take longest, then models, then queues. Rejects with a
 * ConfigError when no model can be served.
 */
export async function startInference(options: {
  redis: RedisClient;
  /** Resolves when Redis has been looked at. */
  redisChecked: Promise<unknown>;
  workerId: string;
  config: WorkerConfig;
  clock: Clock;
  marker: StoreMarker;
  metrics: WorkerMetrics;
  lockLosses: LockLosses;
  statistics: StatisticsCounter;
  onStored: OnStored;
  log: Logger;
  slotProgram?: string | undefined;
  tracing: Tracing | null;
}): Promise<RunningInference> {
  const { clock, config, log, marker, metrics, redis, tracing, workerId } = options;
  const pool: SlotPool = new SlotPool({
    slots: config.slots,
    environment: config.slotEnvironment,
    maxResidentBytes: config.slotMaxRssBytes,
    slowLoadMs: config.timing.slowLoadMs,
    log,
    ...(options.slotProgram !== undefined && { program: options.slotProgram }),
    onIdle: () => dispatcher.pump(),
    onDeath: () => metrics.slotDeaths.inc(),
  });
  const dispatcher: Dispatcher = new Dispatcher(pool, clock, {
    onRun: (runQueue, _works, rows) => metrics.batchRows.observe({ model: runQueue.model }, rows),
    onMisfit: (runQueue, reason) => void keeper.noteMisfit(runQueue, reason),
  });
  metrics.tellSlots(() => ({ configured: config.slots, alive: pool.alive, busy: pool.busy }));
  const endSlots = () => void pool.close();
  const onFinished = (finished: FinishedPrediction) => {
    const { confidence, owner, served, status, timings } = finished;
    options.statistics.ended({ owner, model: served.model, version: served.version }, status, timings, confidence);
    drift.observe(finished);
    shadows.observe(finished);
  };
  const { hangMs } = config.timing;
  const beats = new Beats({ redisTarget: config.redis, keyPrefix: config.keyPrefix, workerId, hangMs }, log);
  const blobMemory = createByteBudget(blobMemoryBytes);
  const serving = startServing({
    ...{ redis, dispatcher, metrics, log, config, workerId, tracing, clock, marker },
    ...{ beats, lockLosses: options.lockLosses, blobMemory, endSlots, onFinished, onStored: options.onStored },
  });
  const keeper = new VersionKeeper({ config, workerId, redis, pool, dispatcher, serving, clock, metrics, log });
  const shadows = new Shadows({
    ...{ redis, keyPrefix: config.keyPrefix, slotEnvironment: config.slotEnvironment, clock, metrics, log },
    timing: config.timing,
    held: () => keeper.held(),
    onMisfit: (runQueue, reason) => void keeper.noteMisfit(runQueue, reason),
  });
  const drift = new DriftCounter({ redis, keyPrefix: config.keyPrefix, clock, log, held: () => keeper.held() });
  const subscriber = openSubscriber(config.redis, `millrace-cancels-${workerId}`);
  subscriber.on("error", () => undefined);
  let reports: StateReports | null = null;
  const closeAll = async () => {
    await reports?.close().catch((error: Error) => log.warn("end of the worker not reported", { error }));
    const looked = keeper.close();
    await shadows.close();
    await serving.close();
    await drift.close();
    closeRedis(subscriber);
    await pool.close();
    await looked;
    await beats.close();
  };
  try {
    await options.redisChecked;
    const { keyPrefix } = config;
    reports = await reportStates({ redis, subscriber, keyPrefix, workerId, keeper, clock, log });
    await hearCancellations(subscriber, keyPrefix, (id) => dispatcher.cancel(id));
    // An emptied store has lost what this worker announced.
    marker.onAccepted(() => void keeper.announceAgain());
    await keeper.start().catch((fault: NodeJS.ErrnoException) => {
      throw fault.syscall === undefined ? fault : new ConfigError([`MODELS_DIR cannot be read (${fault.code})`]);
    });
    // Before the worker is ready: whoever waits for that then reads what is refused.
    await reports.tell();
    const states = keeper.states();
    if (!states.some(({ state }) => state === "ready")) {
      throw new ConfigError([
        `MODELS_DIR has no model that can be served (${states.length} refused)`,
        ...states.map(({ model, reason, version }) => `${version === null ? model : `${model}/${version}`}: ${reason}`),
      ]);
    }
    let closing: Promise<void> | null = null;
    return {
      state: () => ({
        ready: beats.lastAgeMs() < 10_000 && pool.alive > 0 && closing === null,
        slots: { alive: pool.alive, busy: pool.busy, configured: config.slots },
        models: keeper
          .states()
          .filter(({ state }) => state !== "refused")
          .map(({ digest, model, state, version }) => ({ model, version, digest, state })),
        loading: keeper.loading(),
        refused: keeper
          .states()
          .filter(({ state }) => state === "refused")
          .map(({ model, reason, version }) => ({ model, version, reason })),
      }),
      close: () => {
        closing ??= closeAll();
        return closing;
      },
    };
  } catch (fault) {
    await closeAll();
    throw fault;
  }
}
