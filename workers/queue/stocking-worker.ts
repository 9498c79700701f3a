import { setTimeout as delay } from "node:timers/promises";
import { type WorkerTiming, workerTiming } from "@millrace/shared/config/timing.js";
import { keptJobs } from "@millrace/shared/predictions/job.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { giveBackJobs, takeJobs } from "@millrace/shared/scripts/queue/complete.js";
import {
  DelayedError,
  type Job,
  raw2NextJobData,
  UnrecoverableError,
  WaitingError,
  Worker,
  type WorkerOptions,
} from "bullmq";
import { completingBackend, type ProofOf } from "./completing-backend.js";
import { HeldJobs } from "./held-jobs.js";

type JobJson = Parameters<Worker["createJob"]>[0];

interface Stocked {
  json: JobJson;
  id: string;
  token: string;
}

/** An attempt at a job failed by what the job is; it counts against the job, which is tried again while it has more. */
export class AttemptFailedError extends Error {}

/** What is to be done with a job that was taken under `token`; `lock` tells the token that counts by now. */
type Process<R> = (job: Job<unknown, R>, token: string, lock: () => string) => Promise<R>;

interface StockingOptions extends Partial<WorkerOptions> {
  /** Whether nothing is to be done with a job any more, so that a run of it does not go on under its lock either. */
  isOver?(job: Job): boolean;
  /** How many jobs may be taken now, besides what there is room for. */
  mayTake?: () => number;
  /** Where it is, what a job led to. */
  proofOf?: ProofOf;
  /** The product's times unless told otherwise. */
  timing?: WorkerTiming;
}

/** What BullMQ's worker keeps to itself; its version is pinned. */
interface Internals {
  mainLoopQueue: { numTotal(): number } | null;
  updateDelays(limitDelay: number, delayUntil: number): void;
}

/** How all our consumers hold, get back and show jobs, unless told otherwise. */
const howJobsAreHeld = {
  // A job goes back as often as its worker dies; who is to blame is found out by what ran, not by counting this.
  maxStalledCount: Number.MAX_SAFE_INTEGER,
  runRetryDelay: 500,
  removeOnComplete: { count: keptJobs },
  removeOnFail: { count: keptJobs },
};

/** How often a worker that is to take nothing looks whether it may again. */
const heldLookMs = 500;

/** What a job's processor throws on purpose. */
const knownEnds = [AttemptFailedError, DelayedError, UnrecoverableError, WaitingError];

/** How long a job stays away that something went wrong with which is not its own fault. */
const troubleDelayMs = 1000;

/** Jobs taken in one step at the most; what a worker can hold beyond that takes it a few steps. */
const largestTake = 64;

/**
 * A BullMQ worker that takes as many jobs as it has room for in one step, and starts them before it asks for more. BullMQ's
 * own takes one each round trip and starts none until it is full or the queue is empty: where a round trip costs an fsync
 * and jobs come faster than that, the first of them waits until there are `concurrency` of them.
 */
export abstract class StockingWorker<R> extends Worker<unknown, R> {
  readonly #redis: RedisClient;
  readonly #queue: string;
  readonly #lockMs: number;
  readonly #mayTake: () => number;
  readonly #stopped = new AbortController();
  #stock: Stocked[] = [];
  /** Whether jobs were taken that have not been started; and when the next delayed one is due (ms). */
  #toStart = false;
  #nextDelayedAt = 0;

  constructor(
    name: string,
    queue: string,
    process: Process<R>,
    redis: RedisClient,
    { isOver, mayTake = () => Number.POSITIVE_INFINITY, proofOf, timing = workerTiming, ...options }: StockingOptions,
  ) {
    const { lockMs: lockDuration, stalledCheckMs: stalledInterval } = timing;
    const held = { connection: redis as never, ...howJobsAreHeld, lockDuration, stalledInterval, ...options };
    const heldJobs = new HeldJobs();
    super(
      name,
      (job, token = "") =>
        isOver?.(job)
          ? process(job, token, () => token)
          : heldJobs.take(job.id as string, token, (lock) =>
              process(job, token, lock).catch((fault) => this.#sparing(fault, job, lock)),
            ),
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
      await this.#holdOn();
      return super.nextJobFromJobData(undefined, undefined, token);
    }
    const next = this.#stock.shift();
    if (next !== undefined) return super.nextJobFromJobData(next.json, next.id, next.token);
    if (this.#toStart) {
      // As if the queue were empty, which makes the main loop start what it has; then it waits for the marker, which is set.
      this.#toStart = false;
      internals.updateDelays(0, this.#nextDelayedAt);
      return super.nextJobFromJobData(undefined, undefined, token);
    }
    const room = Math.min(mayTake, Math.max(1, this.concurrency - (internals.mainLoopQueue?.numTotal() ?? 0)));
    const taken = await takeJobs(this.#redis, this.#queue, token, Math.min(room, largestTake), this.#lockMs);
    // A queue that is paused or limited is BullMQ's own affair.
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
    // Whoever paused it in the meantime wants nothing more begun.
    if (this.isPaused() || this.closing !== undefined) await this.#giveBack();
    this.#toStart = true;
    this.#nextDelayedAt = taken.nextDelayedAt;
    return super.nextJobFromJobData(first.json, first.id, token);
  }

  protected override nextJobFromJobData(json?: JobJson, id?: string, token?: string) {
    // A job that ended found the queue empty, but there may be some that were taken before.
    const next = json === undefined || !json ? this.#stock.shift() : undefined;
    return next === undefined
      ? super.nextJobFromJobData(json, id, token)
      : super.nextJobFromJobData(next.json, next.id, next.token);
  }

  /** Pauses as BullMQ does, and gives back what was taken and not begun. */
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

  /** Leaves what there is to other workers for a moment; what woke this one may be for them. */
  async #holdOn(): Promise<void> {
    await this.#redis.zadd(`${this.#queue}marker`, 0, "0").catch((error: Error) => this.emit("error", error));
    await delay(heldLookMs, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
  }

  /**
   * What goes wrong without being told as the job's own fault, say because Redis refuses a step, costs it no attempt: one
   * that has none left would end without a result. It is handed out again.
   */
  async #sparing(fault: Error, job: Job, lock: () => string): Promise<never> {
    if (knownEnds.some((known) => fault instanceof known)) throw fault;
    this.emit("error", fault);
    // Where that fails too, it is handed out again when its lock has run out.
    await job.moveToDelayed(Date.now() + troubleDelayMs, lock()).catch((error: Error) => this.emit("error", error));
    throw new DelayedError();
  }

  async #giveBack(): Promise<void> {
    const left = this.#stock;
    this.#stock = [];
    if (left.length === 0) return;
    // What cannot be given back comes back by itself, when its lock has run out.
    await giveBackJobs(this.#redis, this.#queue, left).catch((error: Error) => this.emit("error", error));
  }
}
