import { createRequire } from "node:module";
import type * as BullMQ from "bullmq";

/** Each file of the package exports a part of what its entry exports. */
const load: (file: string) => typeof BullMQ = createRequire(import.meta.url);

/**
 * The parts of BullMQ that a worker runs on. The package's entry also loads flows, relays and backends for other
 * databases: two thirds of its import time. Files of the pinned version; see docs/bullmq.md.
 */
export const { Worker } = load("bullmq/dist/cjs/classes/worker.js");
export const { createRedisBackend } = load("bullmq/dist/cjs/utils/create-backend.js");
export const { raw2NextJobData } = load("bullmq/dist/cjs/classes/redis-queue-backend.js");
export const { DelayedError, UnrecoverableError, WaitingError } = load("bullmq/dist/cjs/classes/errors/index.js");
