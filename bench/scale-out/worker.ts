import { fileURLToPath } from "node:url";
import { readWorkerConfig } from "@millrace/shared/config.js";
import { runService } from "@millrace/shared/run-service.js";
import { startWorker } from "@millrace/workers/start.js";

/** A worker as it is, but for the program in its slots. */
const slotProgram = fileURLToPath(new URL("./sleeping-slot.js", import.meta.url));
await runService("worker", process.env, readWorkerConfig, (config, log) => startWorker(config, log, { slotProgram }));
