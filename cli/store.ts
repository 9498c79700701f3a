import { acceptStore } from "@millrace/shared/redis/store-marker.js";
import { readArguments, UsageError } from "./read-arguments.js";
import { withRedis } from "./with-redis.js";

export const storeUsage = `  store accept     go on with the store of REDIS_URL as it is, after it was emptied or
                   replaced: APIs and workers that refuse it take work again
`;

/** Accepts the store that the environment names. Resolves to the exit code. */
export async function runStore(
  args: readonly string[],
  environment: Record<string, string | undefined>,
  say: (line: string) => void,
): Promise<number> {
  const { positionals } = readArguments(args, {});
  if (positionals.length !== 1 || positionals[0] !== "accept") throw new UsageError("store needs accept");
  await withRedis(environment, acceptStore);
  say("The store is accepted. APIs and workers go on within a second.");
  return 0;
}
