import { RedisUnusableError } from "@millrace/shared/check-redis.js";
import { ConfigError, exitConfig, readWorkerConfig } from "@millrace/shared/config.js";
import { openLog } from "@millrace/shared/log.js";
import { startWorker } from "./start.js";

const giveBackMs = 10_000;

async function main(): Promise<void> {
  const config = readWorkerConfig(process.env);
  const log = openLog("worker", config.logLevel);
  const worker = await startWorker(config, log);
  const stop = (signal: string) => {
    log.info("stopping", { signal });
    // Giving jobs back needs Redis; without it they come back by themselves, when their locks have run out.
    setTimeout(() => process.exit(1), config.shutdownGraceMs + giveBackMs).unref();
    worker.close().then(
      () => process.exit(0),
      (error: Error) => {
        log.error("stopping failed", { error });
        process.exit(1);
      },
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

main().catch((fault: Error) => {
  const known = fault instanceof ConfigError || fault instanceof RedisUnusableError;
  process.stderr.write(`${known ? fault.message : (fault.stack ?? fault.message)}\n`);
  process.exit(fault instanceof ConfigError ? exitConfig : 1);
});
