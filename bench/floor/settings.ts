/** What both processes of the floor are told by the harness. */
export interface FloorSettings {
  redisUrl: string;
  prefix: string;
  queue: string;
  /** Whether callers wait for their result. */
  waiting: boolean;
}

/** Reads the environment that the harness made. */
export function floorSettings(): FloorSettings {
  const { QUEUE = "", REDIS_KEY_PREFIX = "", REDIS_URL = "", WAITING } = process.env;
  return { redisUrl: REDIS_URL, prefix: REDIS_KEY_PREFIX, queue: QUEUE, waiting: WAITING === "1" };
}

/** Ends the process well when it is asked to, so that a profile of it is written. */
export function endOnSigterm(): void {
  process.on("SIGTERM", () => process.exit(0));
}
