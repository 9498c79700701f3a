import { readWorkerConfig } from "@millrace/shared/config.js";
import { runService } from "@millrace/shared/run-service.js";
import { startWorker } from "./start.js";

await runService("worker", process.env, readWorkerConfig, startWorker);
