import { packerOf } from "@millrace/shared/packing/pack-input.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { tellBreaker } from "@millrace/shared/scripts/models/breakers.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { Breaker, type BreakerState, type JobBreaker } from "../jobs/breaker.js";
import type { ServedVersion } from "../jobs/process-prediction.js";
import type { Dispatcher, Outcome } from "../runs/dispatcher.js";
import type { LoadedVersion } from "./load-versions.js";

export interface BreakersOptions {
  redis: RedisClient;
  keys: ModelKeys;
  workerId: string;
  dispatcher: Pick<Dispatcher, "submit" | "release">;
  /** How long a breaker stays open at first, in ms. */
  openMs: number;
  log: Logger;
}

/** The breakers of one model's versions on this worker, and what Redis is told of them. */
export class Breakers {
  readonly #options: BreakersOptions;
  readonly #held = new Map<number, { loaded: LoadedVersion; breaker: Breaker }>();
  /** What is told goes out in order. */
  #telling: Promise<void> = Promise.resolve();

  constructor(options: BreakersOptions) {
    this.#options = options;
  }

  /** Watches over a version, in place of one of the same name. */
  add(loaded: LoadedVersion): void {
    const { modelKey } = loaded.lane;
    if (this.#held.has(modelKey)) return;
    for (const { loaded: other } of this.#held.values()) if (other.version === loaded.version) this.remove(other);
    const { dispatcher, log, openMs } = this.#options;
    const { model, version } = loaded;
    const breaker = new Breaker({
      trySample: sampleRun(dispatcher, loaded),
      onChange: (state) => {
        // What waits for a slot goes back into the queue, where it waits unharmed.
        if (state.state === "open") dispatcher.release(modelKey);
        this.#tell(version, state);
      },
      openMs,
      log: log.child({ model, version }),
    });
    this.#held.set(modelKey, { loaded, breaker });
  }

  remove({ lane, version }: ServedVersion): void {
    const held = this.#held.get(lane.modelKey);
    if (held === undefined) return;
    this.#held.delete(lane.modelKey);
    if (held.breaker.state.state !== "closed") this.#tell(version, null);
    held.breaker.close();
  }

  /** The breaker of a version; of one that has just gone, one that lets it end. */
  readonly of = ({ lane }: ServedVersion): JobBreaker => this.#held.get(lane.modelKey)?.breaker ?? gone;

  /** How many jobs may be taken now: those of all versions are in one queue, so one version that runs lets all be taken. */
  readonly room = (): number => {
    if (this.#held.size === 0) return Number.POSITIVE_INFINITY;
    return Math.max(...[...this.#held.values()].map(({ breaker }) => breaker.room));
  };

  /** Says again what is not closed, so that it goes on to hold. */
  async tellAgain(): Promise<void> {
    for (const { breaker, loaded } of this.#held.values()) {
      if (breaker.state.state !== "closed") this.#tell(loaded.version, breaker.state);
    }
    await this.#telling;
  }

  /** May be called twice. What is open is left to end by its time, for others to know of. */
  close(): void {
    for (const { breaker } of this.#held.values()) breaker.close();
  }

  #tell(version: string, state: BreakerState | null): void {
    const { keys, log, redis, workerId: worker } = this.#options;
    const { refuses, retryAt, state: name } = state ?? { state: "closed", refuses: false, retryAt: 0 };
    const said = name === "closed" ? null : { worker, version, state: name, refuses, retryAt };
    this.#telling = this.#telling
      .then(() => tellBreaker(redis, keys, { worker, version }, said))
      .catch((error) => {
        log.warn("a breaker could not be told of", { error });
      });
  }
}

const gone: JobBreaker = {
  admit: () => "run",
  waitMs: 0,
  lived: () => undefined,
  leftOff: () => undefined,
  died: async () => true,
};

/** What runs the first sample that the version takes; null where there is none. */
function sampleRun(
  dispatcher: Pick<Dispatcher, "submit">,
  { announcement, lane }: LoadedVersion,
): (() => Promise<Outcome["kind"]>) | null {
  const pack = packerOf(announcement);
  for (const { input } of announcement.manifest.samples) {
    const packed = pack(input);
    if ("complaints" in packed) continue;
    const work = {
      ...packed,
      id: `sample of ${lane.modelKey}`,
      lane,
      owner: "",
      priority: -1,
      signature: "",
      alone: true,
    };
    return async () => (await dispatcher.submit({ ...work, onBegin: () => undefined })).kind;
  }
  return null;
}
