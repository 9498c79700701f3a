import { RedisUnusableError } from "../redis/check-redis.js";
import { type Logger, openLog } from "../service/log.js";
import { type CommonConfig, ConfigError, exitConfig } from "./common-config.js";
import type { Environment } from "./secret-files.js";

/** Time for closing beyond the grace, in ms; after that the process exits with code 1. */
const closingMs = 10_000;

/**
 * Runs a service as a process: configuration, log, start, SIGTERM and SIGINT. A failed start writes one message to
 * standard error; the exit code is 78 for the configuration and 1 for other reasons.
 */
export async function runService<C extends CommonConfig>(
  name: string,
  env: Environment,
  readConfig: (env: Environment) => C,
  start: (config: C, log: Logger) => Promise<{ close(): Promise<void> }>,
): Promise<void> {
  try {
    const config = readConfig(env);
    const log = openLog(name, config.logLevel);
    const starting = start(config, log);
    let stopping = false;
    const stop = (signal: string) => {
      if (stopping) return;
      stopping = true;
      log.info("stopping", { signal });
      // Without Redis no job can be given back; jobs come back by themselves, once their locks have expired.
      setTimeout(() => process.exit(1), config.shutdownGraceMs + closingMs).unref();
      starting
        .then((service) => service.close())
        .then(
          () => process.exit(0),
          (error: Error) => {
            log.error("stopping failed", { error });
            process.exit(1);
          },
        );
    };
    // Bound before the service is ready, because it may be stopped as soon as it says so.
    process.on("SIGTERM", stop);
    process.on("SIGINT", stop);
    await starting;
  } catch (fault) {
    const known = fault instanceof ConfigError || fault instanceof RedisUnusableError;
    const { message, stack } = fault as Error;
    process.stderr.write(`${known ? message : (stack ?? message)}\n`);
    process.exit(fault instanceof ConfigError ? exitConfig : 1);
  }
}
