import { baselineId, binOf, driftField, driftHours } from "@millrace/shared/models/drift.js";
import { featuresOf } from "@millrace/shared/packing/pack-tabular.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { flushRegularly, type RegularFlush } from "@millrace/shared/service/regular-flush.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import type { FinishedPrediction } from "../jobs/finish-prediction.js";
import type { LoadedVersion } from "./load-versions.js";

const flushEveryMs = 5000;

/** For each feature with a baseline: its index in the input tensor, the edges of its bins and their counts. */
interface Watched {
  version: LoadedVersion;
  width: number;
  features: { name: string; column: number; edges: readonly number[]; counts: Uint32Array }[];
}

/** Counts the inputs of versions with a baseline by bin, for all workers together. */
export class DriftCounter {
  readonly #redis: RedisClient;
  readonly #keyPrefix: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #held: () => readonly LoadedVersion[];
  readonly #flushes: RegularFlush;
  readonly #watched = new Map<string, Watched | null>();

  constructor(options: {
    redis: RedisClient;
    keyPrefix: string;
    clock: Clock;
    log: Logger;
    /** The versions that this worker serves. */
    held(): readonly LoadedVersion[];
  }) {
    this.#redis = options.redis;
    this.#keyPrefix = options.keyPrefix;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#held = options.held;
    this.#flushes = flushRegularly(flushEveryMs, () => this.#flush());
  }

  /** Counts the input of a prediction that succeeded. */
  observe({ run, served }: FinishedPrediction): void {
    if (run === null) return;
    const name = `${served.model}/${served.version}`;
    let watched = this.#watched.get(name);
    if (watched === undefined) {
      watched = watchedOf(this.#held().find(({ model, version }) => name === `${model}/${version}`));
      this.#watched.set(name, watched);
    }
    if (watched === null) return;
    const [tensor] = unpackTensors(run.pack);
    if (tensor === undefined || tensor.dtype !== "float32" || tensor.shape[1] !== watched.width) return;
    const view = new DataView(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.byteLength);
    for (const { column, counts, edges } of watched.features) {
      const bin = binOf(edges, view.getFloat32(4 * column, true));
      counts[bin] = (counts[bin] as number) + 1;
    }
  }

  /** Writes the remaining counts. May be called twice. */
  close(): Promise<void> {
    return this.#flushes.close();
  }

  async #flush(): Promise<void> {
    const all = [...this.#watched.values()];
    // Looked up again, because a version may have another manifest by then.
    this.#watched.clear();
    const hour = Math.floor(this.#clock.now() / 3_600_000);
    for (const watched of all) {
      if (watched === null) continue;
      const { announcement, model, version } = watched.version;
      const id = baselineId(announcement.manifest.drift_baseline ?? {});
      const key = modelKeys(this.#keyPrefix, model).drift(hour);
      const pipeline = this.#redis.multi();
      for (const { counts, name } of watched.features) {
        counts.forEach((count, bin) => {
          if (count > 0) pipeline.hincrby(key, driftField(version, id, name, bin), count);
        });
      }
      try {
        await pipeline.expire(key, (driftHours + 1) * 3600).exec();
      } catch (error) {
        this.#log.warn("drift counts not written", { model, version, error });
      }
    }
  }
}

function watchedOf(version: LoadedVersion | undefined): Watched | null {
  const manifest = version?.announcement.manifest;
  if (version === undefined || manifest?.kind !== "tabular" || manifest.drift_baseline === undefined) return null;
  const names = featuresOf(manifest).map(({ name }) => name);
  const features = Object.entries(manifest.drift_baseline).flatMap(([name, { edges }]) => {
    const column = names.indexOf(name);
    return column < 0 ? [] : [{ name, column, edges, counts: new Uint32Array(edges.length + 1) }];
  });
  return { version, width: names.length, features };
}
