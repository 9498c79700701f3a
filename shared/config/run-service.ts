import { RedisUnusableError } from "../redis/check-redis.js";
import { type Logger, openLog } from "../service/log.js";
import { type CommonConfig, ConfigError, exitConfig } from "./common-config.js";
import type { Environment } from "./secret-files.js";

/** Beyond the grace, for what closing itself needs; after that the process ends with code 1. */
const closingMs = 10_000;

/**
 * Runs a service as a process: configuration, log, start, SIGTERM and SIGINT. What keeps it from starting goes to standard
 * error as one message; the exit code is 78 for the configuration and 1 for the rest.
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
      // Without Redis nothing can be given back; it comes back by itself, when the locks have run out.
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
    // Bound before it is ready, because whoever reads that it is may stop it at once.
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
