import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { type Completion, completeJobs } from "@millrace/shared/scripts/queue/complete.js";
import type { TakenRaw } from "@millrace/shared/scripts/queue/take-jobs.js";
import { createRedisBackend, raw2NextJobData } from "bullmq";
import { MarkerWaiter } from "./marker-waiter.js";

type BackendFactory = typeof createRedisBackend;
type Backend = ReturnType<BackendFactory>;
type NextJob = ReturnType<typeof raw2NextJobData>;

/** The key that proves what came of a job, by what its processor said or failed with; null where there is nothing to prove. */
export type ProofOf = (job: { id?: string }, outcome: string) => string | null;

const largestStep = 128;

/**
 * BullMQ's own way to Redis but for two things. Jobs that end in the same turn of the event loop, as those of one run
 * do, are ended and replaced by next ones in one step instead of one each. And the worker waits for jobs on a connection that it
 * can do without; see `MarkerWaiter`. Everything else, stalled jobs, locks, failures and delays, is BullMQ's.
 * `mayTake`: whether next ones are to be taken at all.
 */
export function completingBackend(
  redis: RedisClient,
  queue: string,
  lockMs: number,
  { mayTake = () => true, proofOf }: { mayTake?: () => boolean; proofOf?: ProofOf | undefined } = {},
): BackendFactory {
  let pending: { completion: Completion; resolve(next: NextJob | undefined): void; reject(fault: Error): void }[] = [];

  const flush = async (batch: typeof pending) => {
    try {
      const answers = await completeJobs(
        redis,
        queue,
        batch.map(({ completion }) => completion),
        lockMs,
      );
      for (const [i, { completion, reject, resolve }] of batch.entries()) {
        const answer = answers[i] as number | TakenRaw;
        if (Array.isArray(answer)) resolve(raw2NextJobData(answer));
        else if (answer < 0) reject(new Error(`job ${completion.id} is not held by this worker any more (${answer})`));
        else resolve(undefined);
      }
    } catch (fault) {
      for (const { reject } of batch) reject(fault as Error);
    }
  };
  const flushAll = () => {
    const all = pending;
    pending = [];
    for (let i = 0; i < all.length; i += largestStep) void flush(all.slice(i, i + largestStep));
  };

  return (name, opts, extra) => {
    const backend = createRedisBackend(name, opts, { ...extra, withBlockingConnection: false }) as Backend;
    // As BullMQ calls it, which is how it finds out who works on a queue.
    const connectionName = `${queue.slice(0, -name.length - 2)}:${Buffer.from(name).toString("base64")}`;
    const waiter = new MarkerWaiter(redis, `${queue}marker`, connectionName);
    backend.waitForJob = (seconds: number) => waiter.wait(seconds);
    backend.disconnectBlocking = async () => waiter.interrupt();
    const close = backend.close.bind(backend);
    backend.close = (force?: boolean) => {
      waiter.close();
      return close(force);
    };
    const end = async (completion: Completion) => {
      const finishedOn = Date.now();
      const result = await new Promise<NextJob | undefined>((resolve, reject) => {
        if (pending.length === 0) setImmediate(flushAll);
        pending.push({ completion, resolve, reject });
      });
      return { result, finishedOn };
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
