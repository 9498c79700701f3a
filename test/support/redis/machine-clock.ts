import type { Clock } from "@millrace/shared/redis/store-clock.js";

/** This machine's clock, for tests whose Redis is on the same machine. */
export const machineClock: Clock = { now: () => Date.now(), toLocal: (timeMs) => timeMs };
