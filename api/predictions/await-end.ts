import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { watchPrediction } from "@millrace/shared/scripts/predictions/watch.js";
import type { Notices } from "./notices.js";

/** What `read` tells of something that ends, as soon as it has, else after `waitMs` or when nobody listens any more. */
export async function awaitEnd<T extends { ended: boolean }>(
  { notices, redis }: { redis: RedisClient; notices: Notices },
  keys: Pick<ModelKeys, "interest" | "starts">,
  id: string,
  waitMs: number,
  gone: AbortSignal,
  read: () => Promise<T>,
): Promise<T> {
  let now = await read();
  if (now.ended || waitMs === 0) return now;
  const waiter = notices.wait(id, waitMs);
  const stop = () => waiter.close();
  gone.addEventListener("abort", stop);
  try {
    await watchPrediction(redis, keys, id, notices.apiId, { start: false });
    // It may have ended before the note was there, so it is read again before the first wait.
    for (let waiting = true; waiting; ) {
      now = await read();
      if (now.ended) {
        // The step that ended it took the notes away; one that came after it would stay for a day.
        redis.unlink(keys.interest(id)).catch(() => undefined);
        return now;
      }
      waiting = (await waiter.next()) !== null;
    }
    return await read();
  } finally {
    gone.removeEventListener("abort", stop);
    waiter.close();
  }
}
