import { readApiConfig } from "@millrace/shared/config/api-config.js";
import { runService } from "@millrace/shared/config/run-service.js";
import { startApi } from "./start.js";

await runService("api", process.env, readApiConfig, startApi);
