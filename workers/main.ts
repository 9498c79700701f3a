import { runService } from "@millrace/shared/config/run-service.js";
import { readWorkerConfig } from "@millrace/shared/config/worker-config.js";
import { startWorker } from "./start.js";

await runService("worker", process.env, readWorkerConfig, startWorker);
