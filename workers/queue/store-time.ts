import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Job } from "bullmq";

/**
 * BullMQ's worker reads the clock of its machine, writes it into queues, and compares it with times from there. On a
 * machine an hour off, delayed jobs would begin an hour early or late, and locks would not be renewed (see
 * `HeldLocks`). The changes here give it the store's clock instead. They use internals of the pinned version, which
 * docs/bullmq.md lists.
 */

/** Place of the current time among keys and arguments of the steps of BullMQ that a worker runs. */
const placeOfTime: Readonly<Record<string, number>> = {
  moveStalledJobsToWait: 11,
  moveToActive: 12,
  moveToDelayed: 12,
  moveToFinished: 15,
  retryJob: 12,
};

interface Commands {
  execCommand(client: unknown, name: string, args: unknown[]): Promise<unknown>;
}

/** Puts the store's time into the steps of a backend, in place of the machine's. */
export function stampByClock(backend: object, clock: Clock): void {
  const commands = backend as Commands;
  const execute = commands.execCommand.bind(backend);
  commands.execCommand = (client, name, args) => {
    const place = placeOfTime[name];
    if (place !== undefined) {
      if (typeof args[place] !== "number") throw new Error(`BullMQ's step ${name} has no time at ${place}.`);
      args[place] = clock.now();
    }
    return execute(client, name, args);
  };
}

interface Delays {
  updateDelays(limitMs?: number, delayedUntil?: number): void;
}

/** Has a worker wait for the next delayed job, at a time of the store, by this machine's clock. */
export function waitByClock(worker: object, clock: Clock): void {
  const delays = worker as Delays;
  const update = delays.updateDelays.bind(worker);
  delays.updateDelays = (limitMs = 0, delayedUntil = 0) =>
    update(limitMs, delayedUntil > 0 ? clock.toLocal(delayedUntil) : 0);
}

interface Delayer {
  backend: { moveToDelayed(id: string, now: number, delayMs: number, token: string, options: object): Promise<void> };
}

/** Makes `moveToDelayed` of a job take a time of the store. */
export function delayByClock(job: Job<unknown, unknown>, clock: Clock): void {
  job.moveToDelayed = async (timestamp, token = "") => {
    const now = clock.now();
    const delayMs = Math.max(0, timestamp - now);
    const { backend } = job as unknown as Delayer;
    await backend.moveToDelayed(job.id as string, now, delayMs, token, { skipAttempt: true });
    job.delay = delayMs;
  };
}
