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
// A test may keep the main thread busy, as a bug would.
process.on("SIGUSR2", () => {
  const until = performance.now() + Number(process.env.MILLRACE_TEST_BLOCK_MS);
  while (performance.now() < until);
});
await runService("worker", process.env, readConfig, (config, log) =>
  startWorker(config, log, slotProgram === undefined ? {} : { slotProgram }),
);
