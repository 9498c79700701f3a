import type { QueueLimits } from "@millrace/shared/scripts/queue/accept.js";

/** Queue limits far above any test. */
export const ampleLimits: QueueLimits = {
  jobs: 1_000_000,
  rows: 2 ** 40,
  bytes: 2 ** 40,
  ownerPart: 1,
  followers: 1000,
};
