import { RedisUnusableError } from "../redis/check-redis.js";
import { type Logger, openLog } from "../service/log.js";
import { type CommonConfig, ConfigError, exitConfig } from "./common-config.js";
import { endWithParentArgument, onParentEnd } from "./end-with-parent.js";
import type { Environment } from "./secret-files.js";

/** Time for closing beyond the grace, in ms; after that the process exits with code 1. */
const closingMs = 10_000;
/** Time for closing when the parent has ended, in ms: its Redis ends at the same time. */
const orphanMs = 2000;

/**
 * Runs a service as a process: configuration, log, start, SIGTERM and SIGINT, and the end of a parent that asked for
 * it. A failed start writes one message to standard error; the exit code is 78 for the configuration and 1 for other
 * reasons.
 */
export async function runService<C extends CommonConfig>(
  name: string,
  env: Environment,
  readConfig: (env: Environment) => C,
  start: (config: C, log: Logger) => Promise<{ close(): Promise<void> }>,
): Promise<void> {
  try {
    let stop: (signal: string) => void = () => process.exit(1);
    if (process.argv.includes(endWithParentArgument)) {
      onParentEnd(() => {
        setTimeout(() => process.exit(1), orphanMs);
        stop("end of the parent");
      });
    }
    const config = readConfig(env);
    const log = openLog(name, config.logLevel);
    const starting = start(config, log);
    let stopping = false;
    stop = (signal) => {
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
    for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => stop(signal));
    await starting;
  } catch (fault) {
    const known = fault instanceof ConfigError || fault instanceof RedisUnusableError;
    const { message, stack } = fault as Error;
    process.stderr.write(`${known ? message : (stack ?? message)}\n`);
    process.exit(fault instanceof ConfigError ? exitConfig : 1);
  }
}
