import { mostInStep } from "@millrace/shared/predictions/job.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { bullKeys } from "@millrace/shared/redis/key-names.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { evenWhenFull } from "@millrace/shared/scripts/lua/even-when-full.js";
import { type Completion, completeJobs } from "@millrace/shared/scripts/queue/complete.js";
import type { TakenRaw } from "@millrace/shared/scripts/queue/take-jobs.js";
import { joinCalls } from "@millrace/shared/service/join-turn.js";
import { createRedisBackend, raw2NextJobData } from "./bullmq.js";
import { MarkerWaiter } from "./marker-waiter.js";
import { stampByClock } from "./store-time.js";

type BackendFactory = typeof createRedisBackend;
type Backend = ReturnType<BackendFactory>;

/** The key that proves the end of a job, by its return value or failure; null where there is nothing to prove. */
export type ProofOf = (job: { id?: string }, outcome: string) => string | null;

/**
 * BullMQ's backend with three changes. Jobs that end in the same turn of the event loop, as those of one run do, are
 * ended and replaced by the next ones in one step instead of one each. And the worker waits for jobs on a connection
 * that it can lose; see `MarkerWaiter`. Its times are the store's; see `store-time.ts`. Stalled jobs, locks, failures
 * and delays are BullMQ's own. `mayTake`: whether to take next jobs at all.
 */
export function completingBackend(
  redis: RedisClient,
  queue: string,
  lockMs: number,
  clock: Clock,
  { mayTake = () => true, proofOf }: { mayTake?: () => boolean; proofOf?: ProofOf | undefined } = {},
): BackendFactory {
  const complete = joinCalls<Completion, number | TakenRaw>(
    (completions) => completeJobs(redis, queue, completions, { lockMs, nowMs: clock.now() }),
    { maxCalls: mostInStep },
  );

  return (name, opts, extra) => {
    const backend = createRedisBackend(name, opts, { ...extra, withBlockingConnection: false }) as Backend;
    // BullMQ finds the workers of a queue by this name.
    const connectionName = `${queue.slice(0, -name.length - 2)}:${Buffer.from(name).toString("base64")}`;
    const waiter = new MarkerWaiter(redis, `${queue}${bullKeys.marker}`, connectionName);
    backend.waitForJob = async (seconds: number) => {
      const marker = await waiter.wait(seconds);
      return marker === null || marker.score === 0 ? marker : { ...marker, score: clock.toLocal(marker.score) };
    };
    stampByClock(backend, clock);
    backend.disconnectBlocking = async () => waiter.interrupt();
    const close = backend.close.bind(backend);
    backend.close = (force?: boolean) => {
      waiter.close();
      return close(force);
    };
    const end = async (completion: Completion) => {
      const finishedOn = clock.now();
      const answer = await complete(completion);
      if (Array.isArray(answer)) return { result: raw2NextJobData(answer), finishedOn };
      if (answer < 0) throw new Error(`This worker no longer holds job ${completion.id} (${answer}).`);
      return { result: undefined, finishedOn };
    };
    backend.moveToCompleted = ((
      job: { id?: string },
      returnValue: unknown,
      removeOnComplete: unknown,
      token: string,
      takeNext: boolean,
    ) =>
      end({
        id: job.id as string,
        token,
        keep: removeOnComplete !== true,
        returnValueJson: JSON.stringify(returnValue ?? null),
        proof: proofOf?.(job, String(returnValue)),
        takeNext: takeNext && mayTake(),
      })) as unknown as Backend["moveToCompleted"];
    if (proofOf !== undefined) {
      backend.moveToFailed = ((
        job: { id?: string },
        failedReason: string,
        _removeOnFail: unknown,
        token: string,
        takeNext: boolean,
      ) => {
        const [id, proof] = [job.id as string, proofOf(job, failedReason)];
        return end({
          id,
          token,
          keep: true,
          returnValueJson: "",
          failedReason,
          proof,
          takeNext: takeNext && mayTake(),
        });
      }) as unknown as Backend["moveToFailed"];
    }
    return backend;
  };
}

type Definition = Parameters<RedisClient["defineCommand"]>[1];

/**
 * Lets BullMQ's own steps on this connection (taking jobs, renewing locks, giving back) through when Redis has no
 * memory left. A worker ends work and so frees memory; without it a full Redis would stay full. Call it before BullMQ
 * gets the connection.
 */
export function drainWhenFull(redis: RedisClient): void {
  const define = redis.defineCommand.bind(redis);
  redis.defineCommand = (name: string, definition: Definition) => {
    // The scripts of this repository declare it themselves.
    const ours = name.startsWith("millrace");
    define(name, ours ? definition : { ...definition, lua: evenWhenFull(definition.lua) });
  };
}
