import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { cancelChannel } from "@millrace/shared/redis/keys.js";

/**
 * Subscribes to the ends of predictions that this worker may hold. Only a hint: the final state is already written, and
 * a run that goes on does not overwrite it.
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
