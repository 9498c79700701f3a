import type { WorkerConfig } from "@millrace/shared/config/worker-config.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { announceVersion } from "@millrace/shared/scripts/models/announce.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { LoadedVersion } from "./load-versions.js";

/** Announces a version that this worker holds already, with its beat. A failure is logged. */
export async function announceHeld(
  options: { config: WorkerConfig; workerId: string; redis: RedisClient; clock: Clock; log: Logger },
  { announcement, model, version }: LoadedVersion,
): Promise<void> {
  const { clock, config, log, redis, workerId } = options;
  const keys = modelKeys(config.keyPrefix, model);
  try {
    const answer = await announceVersion(redis, config.keyPrefix, keys, announcement, workerId, clock.now());
    if (!answer.announced) log.error("version not announced again: another worker has other files", { model, version });
  } catch (error) {
    log.error("version not announced again", { model, version, error });
  }
}
