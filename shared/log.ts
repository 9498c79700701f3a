import { createLogger, format, type Logger, transports } from "winston";

export type { Logger } from "winston";

/**
 * A logger that writes one JSON object a line to standard output: `timestamp`, `level`, `service`, `message` and what
 * the line is about (`request_id`, `prediction_id`, `model`). Secrets never, inputs only at `debug`.
 */
export function openLog(service: string, level: string): Logger {
  return createLogger({
    level,
    defaultMeta: { service, pid: process.pid },
    format: format.combine(errorCause(), format.timestamp(), format.json()),
    transports: [new transports.Console({ forceConsole: false })],
  });
}

/** An Error under `error` becomes its message and stack; JSON would make it `{}`. */
const errorCause = format((info) => {
  if (info.error instanceof Error) {
    const { message, stack, cause } = info.error;
    info.error = { message, stack, ...(cause instanceof Error && { cause: cause.message }) };
  }
  return info;
});
