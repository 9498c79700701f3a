// The product's worker, with timing and slot program from the test.
import { runService } from "../../../shared/dist/config/run-service.js";
import { readWorkerConfig } from "../../../shared/dist/config/worker-config.js";
import { startWorker } from "../../../workers/dist/start.js";

const times = JSON.parse(process.env.MILLRACE_TEST_TIMING ?? "{}");
const slotProgram = process.env.MILLRACE_TEST_SLOT_PROGRAM;
const readConfig = (env) => {
  const config = readWorkerConfig(env);
  return { ...config, timing: { ...config.timing, ...times } };
};
await runService("worker", process.env, readConfig, (config, log) =>
  startWorker(config, log, slotProgram === undefined ? {} : { slotProgram }),
);
