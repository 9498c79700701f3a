import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { cancelChannel } from "@millrace/shared/redis/keys.js";

/**
 * Hears of predictions that were ended from outside while this worker may hold them. A hint only: their final state is
 * written already, and what still runs writes nothing over it.
 */
export async function hearCancellations(
  subscriber: RedisClient,
  prefix: string,
  onCancel: (id: string) => void,
): Promise<void> {
  const cancels = cancelChannel(prefix);
  subscriber.on("message", (channel: string, id: string) => {
    if (channel === cancels) onCancel(id);
  });
  await subscriber.subscribe(cancels);
}
