import { readWorkerConfig } from "@millrace/shared/config/config.js";
import { runService } from "@millrace/shared/config/run-service.js";
import { startWorker } from "./start.js";

await runService("worker", process.env, readWorkerConfig, startWorker);
