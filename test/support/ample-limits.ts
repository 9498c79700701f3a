import type { QueueLimits } from "@millrace/shared/scripts/queue/accept.js";

/** Limits that no test comes near. */
export const ampleLimits: QueueLimits = { jobs: 1_000_000, rows: 2 ** 40, bytes: 2 ** 40, ownerPart: 1 };
