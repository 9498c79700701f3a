import { createLogger, format, type Logger, transports } from "winston";
import { JoinTurn } from "./join-turn.js";
import { oneLine } from "./one-line.js";

export type { Logger } from "winston";

const togetherMs = 20;

/**
 * A logger that writes one JSON object a line to standard output: `timestamp`, `level`, `service`, `message` and what
 * the line is about (`request_id`, `prediction_id`, `model`). Secrets never, inputs only at `debug`.
 */
export function openLog(service: string, level: string): Logger {
  return createLogger({
    level,
    defaultMeta: { service, pid: process.pid },
    format: format.combine(errorCause(), format.timestamp(), format.json(), inOneLine()),
    transports: [new transports.Console({ forceConsole: false })],
  });
}

/**
 * Logs at `info` what happens to predictions: a line each at an ordinary pace, one line for all of a moment in a rush,
 * with `predictions` instead of the fields of one. A line costs as much as an eighth of its prediction.
 */
export function logTogether(log: Logger, message: string): (fields: Record<string, unknown>) => void {
  const lines = new JoinTurn<Record<string, unknown>>(
    (all) => log.info(message, all.length === 1 ? all[0] : { predictions: all }),
    (run) => setTimeout(run, togetherMs),
  );
  return (fields) => {
    if (log.isInfoEnabled()) lines.add(fields);
  };
}

/** An Error under `error` becomes its message and stack; JSON would make it `{}`. */
const errorCause = format((info) => {
  if (info.error instanceof Error) {
    const { message, stack, cause } = info.error;
    info.error = { message, stack, ...(cause instanceof Error && { cause: cause.message }) };
  }
  return info;
});

/** Where winston keeps the line that it writes. */
const lineOf = Symbol.for("message");

/** Whatever a line is about, no reader takes it for two. */
const inOneLine = format((info) => {
  info[lineOf] = oneLine(String(info[lineOf]));
  return info;
});
