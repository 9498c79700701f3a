import { RedisUnusableError } from "@millrace/shared/check-redis.js";
import { ConfigError, exitConfig, readApiConfig } from "@millrace/shared/config.js";
import { openLog } from "@millrace/shared/log.js";
import { startApi } from "./start.js";

async function main(): Promise<void> {
  const config = readApiConfig(process.env);
  const log = openLog("api", config.logLevel);
  const api = await startApi(config, log);
  const stop = (signal: string) => {
    log.info("stopping", { signal });
    api.close().then(
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
