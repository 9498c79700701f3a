/** Settings of both floor processes, from the harness. */
export interface FloorSettings {
  redisUrl: string;
  prefix: string;
  queue: string;
  /** Whether callers wait for their results. */
  waiting: boolean;
}

/** Reads the environment set by the harness. */
export function floorSettings(): FloorSettings {
  const { QUEUE = "", REDIS_KEY_PREFIX = "", REDIS_URL = "", WAITING } = process.env;
  return { redisUrl: REDIS_URL, prefix: REDIS_KEY_PREFIX, queue: QUEUE, waiting: WAITING === "1" };
}

/** Ends the process normally on SIGTERM, so that its profile is written. */
export function endOnSigterm(): void {
  process.on("SIGTERM", () => process.exit(0));
}
