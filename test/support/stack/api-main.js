// The product's API, with timing from the test.
import { startApi } from "../../../api/dist/start.js";
import { readApiConfig } from "../../../shared/dist/config/api-config.js";
import { runService } from "../../../shared/dist/config/run-service.js";

const times = JSON.parse(process.env.MILLRACE_TEST_TIMING ?? "{}");
const readConfig = (env) => {
  const config = readApiConfig(env);
  return { ...config, timing: { ...config.timing, ...times } };
};
await runService("api", process.env, readConfig, startApi);
