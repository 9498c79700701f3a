import { setTimeout as delay } from "node:timers/promises";
import { type WorkerTiming, workerTiming } from "@millrace/shared/config/timing.js";
import { keptJobs } from "@millrace/shared/predictions/job.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { bullKeys } from "@millrace/shared/redis/key-names.js";
import { giveBackJobs, takeJobs } from "@millrace/shared/scripts/queue/take-jobs.js";
import type { Worker as BullWorker, Job, WorkerOptions } from "bullmq";
import { DelayedError, raw2NextJobData, UnrecoverableError, WaitingError, Worker } from "./bullmq.js";
import { completingBackend, type ProofOf } from "./completing-backend.js";

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
  /** Whether a job has ended, so that a run of it does not go on under its lock either. */
  isOver?(job: J): boolean;
  /** How many jobs may be taken now, apart from the limit of concurrency. */
  mayTake?: () => number;
  /** The key that proves the end of a job. */
  proofOf?: ProofOf;
  /** The product's times unless told otherwise. */
  timing?: WorkerTiming;
}

/** Private members of BullMQ's worker; its version is pinned. */
interface Internals {
  mainLoopQueue: { numTotal(): number } | null;
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

/** Most jobs taken in one step. */
const largestTake = 64;

/**
 * A BullMQ worker that takes as many jobs as it has room for in one step, and starts them before it takes more.
 * BullMQ's own takes one a round trip and starts none until it is full or the queue is empty. Where a round trip costs
 * an fsync and jobs come faster than that, the first of them waits until there are `concurrency` of them.
 */
export abstract class StockingWorker<R, J extends Job<unknown, R> = Job<unknown, R>> extends Worker<unknown, R> {
  readonly #redis: RedisClient;
  readonly #queue: string;
  readonly #lockMs: number;
  readonly #mayTake: () => number;
  readonly #stopped = new AbortController();
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
      isOver,
      mayTake = () => Number.POSITIVE_INFINITY,
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
      completingBackend(redis, queue, held.lockDuration, { mayTake: () => mayTake() > 0, proofOf }),
    );
    this.#mayTake = mayTake;
    this.#redis = redis;
    this.#queue = queue;
    this.#lockMs = held.lockDuration;
  }

  protected override async moveToActive(token: string, name?: string) {
    const internals = this as unknown as Internals;
    const mayTake = this.#mayTake();
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
    const taken = await takeJobs(this.#redis, this.#queue, token, Math.min(room, largestTake), this.#lockMs);
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
    await job.moveToDelayed(Date.now() + troubleDelayMs, lock()).catch((error: Error) => this.emit("error", error));
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

interface Held {
  token: string;
  ended: Promise<void>;
}

/**
 * The jobs of one queue that this worker holds. After an outage of Redis a worker may be handed a job that it still
 * runs, under a new lock. The run goes on under that lock. A second run beside it would be late again and again, and
 * would count as a death.
 */
export class HeldJobs {
  readonly #held = new Map<string, Held>();

  /**
   * Does the work of a job that was taken under `token`, once no earlier take of it is in progress here. `lock` returns
   * the token that counts by then.
   */
  async take<T>(id: string, token: string, work: (lock: () => string) => Promise<T>): Promise<T> {
    for (let before = this.#held.get(id); before !== undefined; before = this.#held.get(id)) {
      before.token = token;
      await before.ended;
    }
    let end: () => void = () => undefined;
    const held: Held = {
      token,
      ended: new Promise((resolve) => {
        end = resolve;
      }),
    };
    this.#held.set(id, held);
    try {
      return await work(() => held.token);
    } finally {
      this.#held.delete(id);
      end();
    }
  }
}
