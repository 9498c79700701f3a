import { setTimeout as delay } from "node:timers/promises";
import { type WorkerTiming, workerTiming } from "@millrace/shared/config/timing.js";
import { keptJobs, mostInStep } from "@millrace/shared/predictions/job.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { bullKeys } from "@millrace/shared/redis/key-names.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { giveBackJobs, takeJobs } from "@millrace/shared/scripts/queue/take-jobs.js";
import type { Worker as BullWorker, Job, WorkerOptions } from "bullmq";
import { DelayedError, raw2NextJobData, UnrecoverableError, WaitingError, Worker } from "./bullmq.js";
import { completingBackend, type ProofOf } from "./completing-backend.js";
import { HeldJobs } from "./held-jobs.js";
import { HeldLocks } from "./held-locks.js";
import { delayByClock, waitByClock } from "./store-time.js";

type JobJson = Parameters<BullWorker["createJob"]>[0];

interface Stocked {
  json: JobJson;
  id: string;
  token: string;
}

/** An attempt failed through the job's own fault; it counts, and the job is tried again while it has attempts left. */
export class AttemptFailedError extends Error {}

/** Processes a job that was taken under `token`; `lock` returns the token that counts by then. */
type Process<R, J> = (job: J, token: string, lock: () => string) => Promise<R>;

interface StockingOptions<J> extends Partial<WorkerOptions> {
  /** The clock of delays and of all times that are written. */
  clock: Clock;
  /** Whether a job has ended, so that a run of it does not go on under its lock either. */
  isOver?(job: J): boolean;
  /** How many jobs may be taken now, apart from the limit of concurrency. */
  mayTake?: () => number;
  /** The key that proves the end of a job. */
  proofOf?: ProofOf;
  /** Told how many locks of jobs were lost to other workers. */
  onLocksLost?: (count: number) => void;
  /** The product's times unless told otherwise. */
  timing?: WorkerTiming;
}

/** Private members of BullMQ's worker; its version is pinned. */
interface Internals {
  mainLoopQueue: { numTotal(): number; add(fetched: Promise<undefined>): void } | null;
  updateDelays(limitDelay: number, delayUntil: number): void;
}

/** Locks, recovery and retention of every consumer, unless it says otherwise. */
const lockSettings = {
  // A job goes back as often as its worker dies; blame follows from the run notes, not from this count.
  maxStalledCount: Number.MAX_SAFE_INTEGER,
  runRetryDelay: 500,
  removeOnComplete: { count: keptJobs },
  removeOnFail: { count: keptJobs },
};

/** Pause between checks of a worker that may take nothing, in ms. */
const takePauseMs = 500;

/** Errors that a processor throws on purpose. */
const knownEnds = [AttemptFailedError, DelayedError, UnrecoverableError, WaitingError];

/** Delay of a job after a fault that is not its own, in ms. */
const troubleDelayMs = 1000;

/**
 * A BullMQ worker that takes as many jobs as it has room for in one step, and starts them before it takes more.
 * BullMQ's own takes one a round trip and starts none until it is full or the queue is empty. Where a round trip costs
 * an fsync and jobs come faster than that, the first of them waits until there are `concurrency` of them.
 *
 * It holds no more jobs than it has shown to renew in time, however many it has room for; see `HoldLimit`.
 */
export abstract class StockingWorker<R, J extends Job<unknown, R> = Job<unknown, R>> extends Worker<unknown, R> {
  readonly #redis: RedisClient;
  readonly #queue: string;
  readonly #lockMs: number;
  readonly #clock: Clock;
  readonly #mayTake: () => number;
  readonly #stopped = new AbortController();
  readonly #locks: HeldLocks;
  /** The most jobs at once that its owner wants. */
  #wanted: number;
  #stock: Stocked[] = [];
  /** Whether jobs were taken and not started, and the due time of the next delayed one (ms). */
  #toStart = false;
  #nextDelayedAt = 0;

  constructor(
    name: string,
    queue: string,
    process: Process<R, J>,
    redis: RedisClient,
    {
      clock,
      isOver,
      mayTake = () => Number.POSITIVE_INFINITY,
      onLocksLost = () => undefined,
      proofOf,
      timing = workerTiming,
      ...options
    }: StockingOptions<J>,
  ) {
    const { lockMs: lockDuration, stalledCheckMs: stalledInterval } = timing;
    const held = { connection: redis as never, ...lockSettings, lockDuration, stalledInterval, ...options };
    const heldJobs = new HeldJobs();
    super(
      name,
      (taken, token = "") => {
        // As `createJob` makes it.
        const job = taken as J;
        return isOver?.(job)
          ? process(job, token, () => token)
          : heldJobs.take(job.id as string, token, (lock) =>
              process(job, token, lock).catch((fault) => this.#requeueWithoutPenalty(fault, job, lock)),
            );
      },
      held,
      completingBackend(redis, queue, held.lockDuration, clock, {
        mayTake: () => !this.#locks.limit.isLate && mayTake() > 0,
        proofOf,
      }),
    );
    this.#mayTake = mayTake;
    this.#redis = redis;
    this.#queue = queue;
    this.#lockMs = held.lockDuration;
    this.#clock = clock;
    waitByClock(this, clock);
    this.#locks = new HeldLocks(this, {
      ...{ lockMs: held.lockDuration, clock, stocked: () => this.#stock, onLost: onLocksLost },
      onLimit: () => this.#applyLimit(),
    });
    this.#wanted = super.concurrency;
    this.#applyLimit();
  }

  /** The most jobs at once: what its owner wants, as far as their locks can be renewed. */
  override get concurrency(): number {
    return super.concurrency;
  }

  override set concurrency(wanted: number) {
    // BullMQ's constructor sets it before this class has its fields.
    if (!(#locks in this)) {
      super.concurrency = wanted;
      return;
    }
    this.#wanted = wanted;
    this.#applyLimit();
  }

  /** Whether this worker is sure to hold a job still, so that no other has taken it. */
  holds(job: { id?: string | undefined; processedOn?: number | undefined }): boolean {
    return this.#locks.holds(job.id as string, job.processedOn ?? 0);
  }

  #applyLimit(): void {
    const before = super.concurrency;
    super.concurrency = Math.max(1, Math.min(this.#wanted, this.#locks.limit.jobs));
    // The main loop may wait for the end of a job; it looks for room after each.
    if (super.concurrency > before) (this as unknown as Internals).mainLoopQueue?.add(Promise.resolve(undefined));
  }

  protected override createJob(json: JobJson, id: string) {
    const job = super.createJob(json, id);
    delayByClock(job, this.#clock);
    return job;
  }

  protected override async moveToActive(token: string, name?: string) {
    const internals = this as unknown as Internals;
    const mayTake = this.#locks.limit.isLate ? 0 : this.#mayTake();
    if (mayTake === 0) {
      await this.#giveBack();
      internals.updateDelays(0, 0);
      await this.#pauseTaking();
      return super.nextJobFromJobData(undefined, undefined, token);
    }
    const next = this.#stock.shift();
    if (next !== undefined) return super.nextJobFromJobData(next.json, next.id, next.token);
    if (this.#toStart) {
      // As if the queue were empty: the main loop then starts its jobs and waits for the marker, which is set.
      this.#toStart = false;
      internals.updateDelays(0, this.#nextDelayedAt);
      return super.nextJobFromJobData(undefined, undefined, token);
    }
    const room = Math.min(mayTake, Math.max(1, this.concurrency - (internals.mainLoopQueue?.numTotal() ?? 0)));
    const taken = await takeJobs(this.#redis, this.#queue, {
      token,
      count: Math.min(room, mostInStep),
      lockMs: this.#lockMs,
      nowMs: this.#clock.now(),
    });
    // BullMQ itself handles paused and limited queues.
    if (taken === null) return super.moveToActive(token, name);
    const [first, ...rest] = taken.jobs.map((raw): Stocked => {
      const [json, id] = raw2NextJobData(raw);
      return { json: json as JobJson, id: id as string, token };
    });
    if (first === undefined) {
      internals.updateDelays(0, taken.nextDelayedAt);
      return super.nextJobFromJobData(undefined, undefined, token);
    }
    this.#stock.push(...rest);
    // After a pause in the meantime nothing more may begin.
    if (this.isPaused() || this.closing !== undefined) await this.#giveBack();
    this.#toStart = true;
    this.#nextDelayedAt = taken.nextDelayedAt;
    return super.nextJobFromJobData(first.json, first.id, token);
  }

  protected override nextJobFromJobData(json?: JobJson, id?: string, token?: string) {
    // A job that ended found the queue empty, but earlier takes may not be started yet.
    const next = json === undefined || !json ? this.#stock.shift() : undefined;
    return next === undefined
      ? super.nextJobFromJobData(json, id, token)
      : super.nextJobFromJobData(next.json, next.id, next.token);
  }

  /** Pauses as BullMQ does, and gives back jobs that were taken and not begun. */
  override async pause(doNotWaitActive?: boolean): Promise<void> {
    this.#stopped.abort();
    await super.pause(doNotWaitActive);
    await this.#giveBack();
  }

  override async close(force?: boolean): Promise<void> {
    this.#stopped.abort();
    await this.#giveBack();
    return super.close(force);
  }

  /** Leaves waiting jobs to other workers for a moment, since the marker may be meant for them. */
  async #pauseTaking(): Promise<void> {
    const marker = `${this.#queue}${bullKeys.marker}`;
    await this.#redis.zadd(marker, 0, "0").catch((error: Error) => this.emit("error", error));
    await delay(takePauseMs, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
  }

  /**
   * A fault that is not the job's own, such as a step that Redis refuses, costs no attempt: on the last one the job
   * would end without a result. The job is handed out again.
   */
  async #requeueWithoutPenalty(fault: Error, job: Job, lock: () => string): Promise<never> {
    if (knownEnds.some((known) => fault instanceof known)) throw fault;
    this.emit("error", fault);
    // Where that fails too, the job is handed out again once its lock has expired.
    await job
      .moveToDelayed(this.#clock.now() + troubleDelayMs, lock())
      .catch((error: Error) => this.emit("error", error));
    throw new DelayedError();
  }

  async #giveBack(): Promise<void> {
    const left = this.#stock;
    this.#stock = [];
    if (left.length === 0) return;
    // A job that cannot be given back comes back by itself, once its lock has expired.
    await giveBackJobs(this.#redis, this.#queue, left).catch((error: Error) => this.emit("error", error));
  }
}
