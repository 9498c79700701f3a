import {
  batchFields,
  beforeChunk,
  chunkJobName,
  chunkNumberPattern,
  lineCountBytes,
  windowChunks,
} from "../../predictions/batch.js";
import { chunkHead } from "../../predictions/bulk-chunk.js";
import {
  beforeRedelivery,
  deliveryJobData,
  deliveryJobName,
  deliveryKeptMs,
  webhookEvents,
} from "../../predictions/delivery.js";
import {
  anyToken,
  behindByPriority,
  delayedScorePerMs,
  drainStaleMs,
  drainWindowMs,
  endedJobData,
  jobOutcomes,
  joinedMark,
  keptEvents,
  mostWatchers,
  promotedAtOnce,
  toldAtOnce,
  unbegunToken,
} from "../../predictions/job.js";
import * as keptTimes from "../../predictions/kept-times.js";
import { listedRedrives, redriveJobName } from "../../predictions/redrive.js";
import { notePatterns } from "../../predictions/run-note.js";
import { bullKeys, entryMarks, fairKeys, keyNames } from "../../redis/key-names.js";
import type { LuaNames } from "./lua-places.js";

/** BullMQ's error codes in the answers of steps, by BullMQ's names; `test/queue/bullmq-names.test.ts` compares them. */
export const bullmqErrors = {
  JobNotExist: -1,
  JobLockNotExist: -2,
  JobNotInState: -3,
  JobLockMismatch: -6,
} as const;

/** A value as a Lua literal. */
const literal = (value: string | number): string => {
  if (typeof value === "number") return String(value);
  if (/['\\\n]/.test(value)) throw new Error(`${JSON.stringify(value)} needs escapes in Lua`);
  return `'${value}'`;
};

const literals = (table: Readonly<Record<string, string | number>>): Record<string, string> =>
  Object.fromEntries(Object.entries(table).map(([name, value]) => [name, literal(value)]));

/** The constants of Lua files, by group, as Lua literals. `.luacheckrc` lists the groups. */
export const luaConstants: LuaNames = {
  /** Names of keys: after the model's base, after BullMQ's queue prefix, after the prefix of its fair queue. */
  KEYNAME: literals(keyNames),
  BULLKEY: literals(bullKeys),
  FAIRKEY: literals(fairKeys),
  MARK: literals(entryMarks),
  BULL: literals(bullmqErrors),
  /** Unsigned integers in binary values: format in `struct`, and position, which Lua counts from 1. */
  LAYOUT: literals({ u32: "<I4", lineCountBytes, chunkLinesAt: chunkHead.lines + 1 }),
  /** Lists of values, as arguments of a command. */
  LIST: { batchFields: batchFields.map(literal).join(", ") },
  OUTCOME: literals({ removed: jobOutcomes.removed, failed: jobOutcomes.failed }),
  EVENT: literals(webhookEvents),
  /** Patterns of `string.match`. */
  PATTERN: literals({ ...notePatterns, chunkNumber: chunkNumberPattern }),
  CONST: literals({
    ...keptTimes,
    anyToken,
    beforeChunk,
    beforeRedelivery,
    behindByPriority,
    chunkJobName,
    delayedScorePerMs,
    deliveryJobData,
    deliveryJobName,
    deliveryKeptMs,
    drainStaleMs,
    drainWindowMs,
    endedJobData,
    joinedMark,
    keptEvents,
    listedRedrives,
    mostWatchers,
    promotedAtOnce,
    redriveJobName,
    toldAtOnce,
    unbegunToken,
    windowChunks,
  }),
};
