import type { RedisClient } from "../../redis/connect-redis.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, text, unnamed } from "../lua/fields.js";

/**
 * A bucket that holds a minute's worth and is refilled all the time. What does not fit takes nothing. It answers what
 * is used up, and in how many ms there is room again (of what is refused) or all is free again. A refusal is told by
 * adding the limit and one.
 */
export const tokenBucket = defineScript({
  name: "millraceTokenBucket",
  file: "access/token-bucket",
  keys: { bucket: text("`<used>@<ms since the epoch>`, which the limiter names.") },
  fields: {
    cost: number("Requests or rows to take; 0 only asks."),
    blockSeconds: unnamed(number("Set by the limiter, which has a default script with it.")),
    limit: number("Capacity of the bucket."),
    windowSeconds: number("Time in which an empty bucket fills."),
  },
  answer: answers<[used: number, ms: number]>("What is used, and the time to wait."),
});

/** The time in which an empty bucket fills. */
export const bucketSeconds = 60;

/** Takes from a bucket what a key may have in a minute. Resolves to false where there is not so much. */
export async function takeTokens(
  redis: RedisClient,
  { cost, key, limit }: { key: string; limit: number; cost: number },
): Promise<boolean> {
  const fields = { cost, blockSeconds: 0, limit, windowSeconds: bucketSeconds };
  const [used] = await tokenBucket.run(redis, { keys: { bucket: key }, fields });
  return used <= limit;
}
