import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { runScript, type Script } from "../queue/script.js";

/**
 * What a slot was given is noted in Redis before it runs, because whatever kills a slot may kill its worker too; the
 * note goes when the run ends. A job that is taken with a note still there was in a run that took its worker down.
 */
export interface RunNote {
  startedAt: number;
  attempt: number;
  /** Whether nothing else was in that run, so that nothing else can be blamed. */
  alone: boolean;
  worker: string;
  /** The job's lock; who has lost it writes no note, for the job is somebody else's by then. */
  token?: string;
}

const encodeNote = (note: RunNote): string => `${note.startedAt}|${note.attempt}|${note.alone ? 1 : 0}|${note.worker}`;

export function decodeNote(text: string): RunNote {
  const [startedAt, attempt, alone, worker = ""] = text.split("|");
  return { startedAt: Number(startedAt), attempt: Number(attempt), alone: alone === "1", worker };
}

/**
 * KEYS: running, starts. ARGV: key base, channel prefix, queue prefix, then id, lock token and note in turn. Returns the
 * ids whose start somebody wants to hear of.
 */
const noteScript: Script = {
  name: "millraceNoteRun",
  whenFull: true,
  lua: `
local locks, held, notes, awaited = {}, {}, {}, {}
for i = 4, #ARGV, 3 do locks[#locks + 1] = ARGV[3] .. ARGV[i] .. ':lock' end
locks = redis.call('MGET', unpack(locks))
for n, lock in ipairs(locks) do
  local i = 1 + 3 * n
  if lock == ARGV[i + 1] then
    held[#held + 1] = ARGV[i]
    notes[#notes + 1] = ARGV[i]
    notes[#notes + 1] = ARGV[i + 2]
  end
end
if #held == 0 then return awaited end
redis.call('HSET', KEYS[1], unpack(notes))
if redis.call('EXISTS', KEYS[2]) == 0 then return awaited end
for _, id in ipairs(held) do
  if redis.call('SISMEMBER', KEYS[2], id) == 1 then
    awaited[#awaited + 1] = id
    for _, entry in ipairs(redis.call('LRANGE', ARGV[1] .. '/interest:' .. id, 0, -1)) do
      if string.sub(entry, 1, 1) == 'w' then redis.call('PUBLISH', ARGV[2] .. string.sub(entry, 2), id .. '\\n') end
    end
  end
end
return awaited`,
};

/**
 * Notes that a run begins, tells the APIs that watch for it, and resolves to the ids whose start is awaited. One command,
 * so that the network stack holds it whole even if this process dies at once.
 */
export async function noteRun(
  redis: RedisClient,
  keys: ModelKeys,
  notes: ReadonlyMap<string, RunNote>,
  channelPrefix: string,
): Promise<string[]> {
  const args: string[] = [keys.base, channelPrefix, keys.queue];
  for (const [id, note] of notes) args.push(id, note.token ?? "", encodeNote(note));
  return (await runScript(redis, noteScript, [keys.running, keys.starts], args)) as string[];
}

/** Takes back the notes of jobs that go back into the queue unharmed. */
export function forgetRun(redis: RedisClient, keys: ModelKeys, ids: readonly string[]): Promise<unknown> {
  return redis.hdel(keys.running, ...ids);
}

/** KEYS: running, deaths, result. ARGV: id. Counts a death once: the note is taken away with it. */
const historyLua = `
local note = redis.call('HGET', KEYS[1], ARGV[1])
local final = redis.call('EXISTS', KEYS[3])
if note and final == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
  if string.match(note, '^%d+|%d+|1|') then redis.call('HINCRBY', KEYS[2], ARGV[1], 1) end
end
return {final, note, redis.call('HGET', KEYS[2], ARGV[1])}
`;

const historyScript: Script = { name: "millraceHistory", whenFull: true, lua: historyLua };

/** What became of a job that was taken before. */
export interface JobHistory {
  /** Its final state is written already: there is nothing left to run. */
  final: boolean;
  /** It was in a run that never ended. */
  diedRunning: boolean;
  /** How often it was running alone when slot and worker died together. */
  deaths: number;
}

/** Reads the history of a job that BullMQ hands out again. */
export async function readHistory(redis: RedisClient, keys: ModelKeys, id: string): Promise<JobHistory> {
  const [final, note, deaths] = (await runScript(
    redis,
    historyScript,
    [keys.running, keys.deaths, keys.result(id)],
    [id],
  )) as [number, string | null, string | null];
  return { final: final === 1, diedRunning: note !== null, deaths: Number(deaths ?? 0) };
}
