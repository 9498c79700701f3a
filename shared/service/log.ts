import { createLogger, format, type Logger, transports } from "winston";
import { AuditChain } from "./audit-chain.js";
import { LineLimiter, type LogEntry } from "./line-limiter.js";
import { oneLine } from "./one-line.js";

export type { Logger } from "winston";

/** The pause after the first line of a moment, and between lines in a rush, in ms. */
const togetherMs = 20;
const rushMs = 250;
const mostTogether = 500;

/** Marks a line that passes the limit: it was counted before, or stands for many. */
const isCounted = Symbol("counted");

/**
 * A logger that writes one JSON object a line to standard output: `timestamp`, `level`, `service`, `message` and what
 * the line is about (`request_id`, `prediction_id`, `model`). Secrets never, inputs only at `debug`. Lines that come
 * too fast are counted (see `LineLimiter`), except those of the audit and at `debug`.
 */
export function openLog(service: string, level: string): Logger {
  const limiter = new LineLimiter((entry) => log.log({ ...entry, [isCounted]: true } as never));
  const limited = format((info) => {
    const passes = isCounted in info || info.audit === true || unlimitedLevels.has(info.level);
    return passes || limiter.admit(info as LogEntry) ? info : false;
  });
  const log = createLogger({
    level,
    defaultMeta: { service, pid: process.pid },
    format: limited(),
    // The transport's, so that a line that is not written has no place in the chain.
    transports: [
      new transports.Console({
        forceConsole: false,
        format: format.combine(
          errorCause(),
          format.timestamp(),
          format.json(),
          sealAudit(new AuditChain()),
          inOneLine(),
        ),
      }),
    ],
  });
  return log;
}

const unlimitedLevels = new Set(["verbose", "debug", "silly"]);

type Fields = Record<string, unknown>;
const joined = new WeakMap<Logger, Map<string, (fields: Fields) => void>>();

/**
 * Logs what happens to predictions: a line each at an ordinary pace, one line for all of a moment in a rush, with
 * `predictions` instead of the fields of one, so that none is missing. A line costs as much as an eighth of its
 * prediction.
 */
export function logTogether(log: Logger, message: string, level: "info" | "warn" = "info"): (fields: Fields) => void {
  const known = joined.get(log) ?? new Map<string, (fields: Fields) => void>();
  joined.set(log, known);
  const name = `${level} ${message}`;
  const add = known.get(name) ?? joinLines((fields) => log.log({ level, message, ...fields, [isCounted]: true }));
  known.set(name, add);
  return (fields) => {
    if (log.isLevelEnabled(level)) add(fields);
  };
}

function joinLines(write: (fields: Fields) => void): (fields: Fields) => void {
  let all: Fields[] = [];
  let timer: NodeJS.Timeout | null = null;
  let writtenAt = Number.NEGATIVE_INFINITY;
  const flush = () => {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    writtenAt = performance.now();
    const lines = all;
    all = [];
    write(lines.length === 1 ? (lines[0] as Fields) : { predictions: lines });
  };
  return (fields) => {
    all.push(fields);
    if (all.length >= mostTogether) flush();
    else timer ??= setTimeout(flush, Math.max(togetherMs, writtenAt + rushMs - performance.now()));
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

/** Audit lines are chained (`audit-chain.ts`). */
const sealAudit = (chain: AuditChain) =>
  format((info) => {
    if (info.audit === true) info[lineOf] = chain.seal(String(info[lineOf]));
    return info;
  })();

/** Whatever a line is about, no reader takes it for two. */
const inOneLine = format((info) => {
  info[lineOf] = oneLine(String(info[lineOf]));
  return info;
});
