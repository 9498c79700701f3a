import { fileURLToPath } from "node:url";
import { runService } from "@millrace/shared/config/run-service.js";
import { readWorkerConfig } from "@millrace/shared/config/worker-config.js";
import { startWorker } from "@millrace/workers/start.js";

/** The product's worker with another slot program. */
const slotProgram = fileURLToPath(new URL("./sleeping-slot.js", import.meta.url));
await runService("worker", process.env, readWorkerConfig, (config, log) => startWorker(config, log, { slotProgram }));
