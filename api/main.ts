import { readApiConfig } from "@millrace/shared/config.js";
import { runService } from "@millrace/shared/run-service.js";
import { startApi } from "./start.js";

await runService("api", process.env, readApiConfig, startApi);
