import { packerOf } from "@millrace/shared/packing/pack-input.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { tellBreaker } from "@millrace/shared/scripts/models/tell-breaker.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { Breaker, type BreakerState, type JobBreaker } from "../jobs/job-breaker.js";
import type { ServedVersion } from "../jobs/taken-prediction.js";
import type { Dispatcher } from "../runs/dispatcher.js";
import type { Outcome } from "../runs/work.js";
import type { LoadedVersion } from "./load-versions.js";

export interface BreakersOptions {
  redis: RedisClient;
  keys: ModelKeys;
  workerId: string;
  dispatcher: Pick<Dispatcher, "submit" | "release">;
  /** First open time of a breaker, in ms. */
  openMs: number;
  clock: Clock;
  log: Logger;
}

/** The breakers of one model's versions on this worker, and their state in Redis. */
export class Breakers {
  readonly #options: BreakersOptions;
  readonly #held = new Map<number, { loaded: LoadedVersion; breaker: Breaker }>();
  /** The last write to Redis, so that writes go out in order. */
  #telling: Promise<void> = Promise.resolve();

  constructor(options: BreakersOptions) {
    this.#options = options;
  }

  /** Adds a version, in place of one of the same name. */
  add(loaded: LoadedVersion): void {
    const { modelKey } = loaded.runQueue;
    if (this.#held.has(modelKey)) return;
    for (const { loaded: other } of this.#held.values()) if (other.version === loaded.version) this.remove(other);
    const { clock, dispatcher, log, openMs } = this.#options;
    const { model, version } = loaded;
    const breaker = new Breaker({
      trySample: sampleRun(dispatcher, loaded),
      onChange: (state) => {
        // Works that wait for a slot go back into the queue.
        if (state.state === "open") dispatcher.release(modelKey);
        this.#tell(version, state);
      },
      openMs,
      clock,
      log: log.child({ model, version }),
    });
    this.#held.set(modelKey, { loaded, breaker });
  }

  remove({ runQueue, version }: ServedVersion): void {
    const held = this.#held.get(runQueue.modelKey);
    if (held === undefined) return;
    this.#held.delete(runQueue.modelKey);
    if (held.breaker.state.state !== "closed") this.#tell(version, null);
    held.breaker.close();
  }

  /** The breaker of a version; for a version that was just removed, one that is always closed. */
  readonly of = ({ runQueue }: ServedVersion): JobBreaker => this.#held.get(runQueue.modelKey)?.breaker ?? gone;

  /** Number of jobs that may be taken now. All versions share one queue, so one closed breaker allows any number. */
  readonly room = (): number => {
    if (this.#held.size === 0) return Number.POSITIVE_INFINITY;
    return Math.max(...[...this.#held.values()].map(({ breaker }) => breaker.room));
  };

  /** Renews the state of breakers that are not closed, which expires in Redis. */
  async tellAgain(): Promise<void> {
    for (const { breaker, loaded } of this.#held.values()) {
      if (breaker.state.state !== "closed") this.#tell(loaded.version, breaker.state);
    }
    await this.#telling;
  }

  /** May be called twice. An open breaker's state stays in Redis until it expires. */
  close(): void {
    for (const { breaker } of this.#held.values()) breaker.close();
  }

  #tell(version: string, state: BreakerState | null): void {
    const { clock, keys, log, redis, workerId: worker } = this.#options;
    const { refuses, retryAt, state: name } = state ?? { state: "closed", refuses: false, retryAt: 0 };
    const said = name === "closed" ? null : { worker, version, state: name, refuses, retryAt };
    this.#telling = this.#telling
      .then(() => tellBreaker(redis, keys, { worker, version }, said, clock.now()))
      .catch((error) => {
        log.warn("breaker state not written", { error });
      });
  }
}

const gone: JobBreaker = {
  admit: () => "run",
  waitMs: 0,
  recordSuccess: () => undefined,
  abandonProbe: () => undefined,
  recordDeath: async () => true,
};

/** Runs the first valid sample of the version; null where there is none. */
function sampleRun(
  dispatcher: Pick<Dispatcher, "submit">,
  { announcement, runQueue }: LoadedVersion,
): (() => Promise<Outcome["kind"]>) | null {
  const pack = packerOf(announcement);
  for (const { input } of announcement.manifest.samples) {
    const packed = pack(input);
    if ("complaints" in packed) continue;
    const work = {
      ...packed,
      id: `sample of ${runQueue.modelKey}`,
      runQueue,
      owner: "",
      priority: -1,
      signature: "",
      alone: true,
    };
    return async () => (await dispatcher.submit({ ...work, onBegin: () => undefined })).kind;
  }
  return null;
}
