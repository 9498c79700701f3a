// A worker as it is, but for the program in its slots.
import { fileURLToPath } from "node:url";
import { runService } from "../../../shared/dist/config/run-service.js";
import { readWorkerConfig } from "../../../shared/dist/config/worker-config.js";
import { startWorker } from "../../../workers/dist/start.js";

const slotProgram = fileURLToPath(new URL("./sick-slot.js", import.meta.url));
await runService("worker", process.env, readWorkerConfig, (config, log) => startWorker(config, log, { slotProgram }));
