import { type BatchRecord, batchFields, decodeBatch } from "../../predictions/batch.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { deliverLua } from "../deliveries.js";
import { bullAddLua } from "../queue/bullmq-add.js";
import { type Idempotency, idempotencyHashes, idempotencyLua } from "../queue/idempotency.js";
import { runScript, type Script } from "../queue/script.js";
import { addChunkJobLua, windowChunks } from "./stage-chunks.js";

/**
 * Batches, which rest on these rules:
 * - Chunks are staged while the body arrives, and run by then, too; see `stage-chunks.ts`. One step makes them a batch.
 * - From then on a window of chunk jobs is in the model's queue of chunks. The step that writes a chunk's outputs, once
 *   and fenced by its job's lock, counts them, drops its inputs, adds the next job and ends the batch with the last one.
 * - A cancel is such an end too, and the step that accepts a batch that is done by then. An end never changes: what is
 *   done later is dropped.
 * - No step's cost grows with the batch.
 */
/**
 * Lua: `endBatch(base, id, status, now, nowText, resultMs, webhook queue, channel prefix, body start)` ends the batch for
 * good; needs `bullAddLua` and `deliverLua` before it.
 */
const endLua = `
local function countRows(base, owner, amount)
  redis.call('INCRBY', base .. '/bulk-rows', amount)
  local held = base .. '/bulk-rows-of'
  if redis.call('HINCRBY', held, owner, amount) <= 0 then redis.call('HDEL', held, owner) end
end
local function isoTime(ms)
  local days, rest = math.floor(ms / 86400000), ms % 86400000
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ"', year, month, day, math.floor(rest / 3600000),
    math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000)
end
local function endBatch(base, id, canceled, now, resultMs, webhooks, channels, bodyStart)
  local key = base .. '/batch:' .. id
  local batch = redis.call('HMGET', key, 'head', 'tail', 'total', 'succeeded', 'failed', 'created', 'started', 'begun', 'owner')
  local total, succeeded, failed = tonumber(batch[3]), tonumber(batch[4]), tonumber(batch[5])
  local left = total - succeeded - failed
  local status = canceled and 'canceled' or succeeded == total and 'succeeded' or succeeded == 0 and 'failed' or 'partial'
  local started = batch[7] and tonumber(batch[7])
  local perSecond = 0
  local begun = tonumber(batch[8] or batch[7] or now)
  if now > begun then perSecond = (succeeded + failed) * 1000 / (now - begun) end
  local json = batch[1] .. string.format('"status":"%s","counts":{"total":%d,"succeeded":%d,"failed":%d,"canceled":%d,' ..
    '"pending":0},"progress":%.4g,"created_at":%s,"started_at":%s,"finished_at":%s,"rows_per_second":%.10g,"eta_ms":null',
    status, total, succeeded, failed, left, math.floor((total - left) / total * 10000) / 10000,
    isoTime(tonumber(batch[6])), started and isoTime(started) or 'null', isoTime(now),
    math.floor(perSecond * 1000 + 0.5) / 1000) .. batch[2]
  redis.call('HSET', key, 'json', json, 'canceled', left)
  countRows(base, batch[9], 0 - left)
  local interest = redis.call('LRANGE', base .. '/interest:' .. id, 0, -1)
  redis.call('UNLINK', base .. '/batch-chunks:' .. id, base .. '/interest:' .. id)
  for _, name in ipairs({'/batch:', '/batch-lines:', '/batch-results:', '/batch-failed:'}) do
    redis.call('PEXPIRE', base .. name .. id, resultMs)
  end
  deliver(base, webhooks, id, interest, 'batch.completed', bodyStart .. json .. '}', now)
  for _, entry in ipairs(interest) do
    if string.sub(entry, 1, 1) == 'w' then redis.call('PUBLISH', channels .. string.sub(entry, 2), id .. '\\n') end
  end
  return json
end
`;

/**
 * KEYS: batch, chunks, lines, results, failed, owned, idempotency. ARGV: id, now (ms), key base, queue prefix, chunks,
 * lines, priority, result time (ms), hashes of the body or "", follower or "", webhook queue prefix, channel prefix, webhook
 * body up to its data, version, `owner` and it, `weight` and it, then the other fixed fields of the batch, name and value in turn.
 */
const commitScript: Script = {
  name: "millraceCommitBatch",
  lua: `
${idempotencyLua}
${bullAddLua}
${addChunkJobLua}
${deliverLua}
${endLua}
local id, now, base, queue, chunks = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local function drop(kind, target)
  for i = 1, 5 do redis.call('UNLINK', KEYS[i]) end
  return {kind, target}
end
if ARGV[9] ~= '' then
  local same, target = sentBefore(KEYS[7], ARGV[9])
  if same ~= nil then return drop(same and 'replayed' or 'mismatch', same and target or '') end
end
local early = redis.call('HMGET', KEYS[1], 'version', 'next', 'done', 'succeeded', 'failed', 'begun')
local next, done = tonumber(early[2] or 0), tonumber(early[3] or 0)
local ran = tonumber(early[4] or 0) + tonumber(early[5] or 0)
if early[1] and early[1] ~= ARGV[14] or chunks == 0 or redis.call('HLEN', KEYS[2]) ~= chunks - done
    or redis.call('HLEN', KEYS[4]) ~= done then
  return drop('lost', '')
end
if ARGV[9] ~= '' then keepSent(KEYS[7], ARGV[9], id) end
for i = 1, 5 do redis.call('PERSIST', KEYS[i]) end
while next < chunks and next - done < ${windowChunks} do
  addChunkJob(queue, id, next, ARGV[2], ARGV[7], ARGV[16], ARGV[18])
  next = next + 1
end
redis.call('HSET', KEYS[1], 'created', ARGV[2], 'chunks', ARGV[5], 'total', ARGV[6], 'priority', ARGV[7],
  'succeeded', early[4] or 0, 'failed', early[5] or 0, 'done', done, 'next', next, 'version', ARGV[14], unpack(ARGV, 15))
-- It cannot have started before there was a batch; how fast it is counts from when it really did.
if early[6] then redis.call('HSET', KEYS[1], 'started', ARGV[2]) end
countRows(base, ARGV[16], ARGV[6] - ran)
redis.call('ZADD', KEYS[6], now, id)
redis.call('PEXPIRE', KEYS[6], ARGV[8] + 604800000)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', now - ARGV[8], 'LIMIT', 0, 16)) do
  if redis.call('EXISTS', base .. '/batch:' .. old) == 0 then redis.call('ZREM', KEYS[6], old) end
end
if ARGV[10] ~= '' then redis.call('RPUSH', base .. '/interest:' .. id, 'f' .. ARGV[10]) end
if done == chunks then endBatch(base, id, false, now, ARGV[8], ARGV[11], ARGV[12], ARGV[13]) end
return {'accepted', id, redis.call('HMGET', KEYS[1], ${batchFields.map((field) => `'${field}'`).join(", ")})}`,
};

export interface BatchCommit {
  id: string;
  owner: string;
  nowMs: number;
  chunks: number;
  lines: number;
  /** 0 in order of arrival; 1 (first) to 1000 (last) behind those. */
  priority: number;
  resultTtlMs: number;
  channelPrefix: string;
  idempotency: Idempotency | null;
  followerJson: string | null;
  version: string;
  /** How much of the queue its owner has against others. */
  weight: number;
  /** `head` and `tail` of a `BatchRecord`, and the `labels` of a classifier as JSON. */
  fixed: Readonly<Record<string, string>>;
}

/**
 * Makes what was staged a batch, and ends it where all of it has run by then. `replayed`: this key was used for the same body before, `id` is that batch; `mismatch`:
 * for another body; `lost`: what was staged has expired, or ran as another version.
 */
export async function commitBatch(
  redis: RedisClient,
  keys: ModelKeys,
  commit: BatchCommit,
): Promise<{ kind: "accepted" | "replayed" | "mismatch" | "lost"; id: string; batch: BatchRecord | null }> {
  const { chunks, fixed, followerJson, id, idempotency, lines, nowMs, owner, priority, resultTtlMs } = commit;
  const scriptKeys = [
    keys.batch(id),
    keys.batchChunks(id),
    keys.batchLines(id),
    keys.batchResults(id),
    keys.batchFailed(id),
    keys.ownedBatches(owner),
    keys.idempotency(owner, idempotency?.key ?? ""),
  ];
  const args = [id, nowMs, keys.base, keys.batchQueue, chunks, lines, priority, resultTtlMs];
  args.push(idempotency === null ? "" : idempotencyHashes(idempotency), followerJson ?? "");
  args.push(keys.webhookQueue, commit.channelPrefix, completedBody(nowMs));
  args.push(commit.version, "owner", owner, "weight", commit.weight, ...Object.entries(fixed).flat());
  const [kind, target, fields] = (await runScript(redis, commitScript, scriptKeys, args)) as [
    "accepted" | "replayed" | "mismatch" | "lost",
    string,
    (string | null)[]?,
  ];
  return { kind, id: target, batch: fields === undefined ? null : decodeBatch(fields) };
}

/** KEYS: batch, results, running, deaths. ARGV: chunk number, job id. Writes nothing where the chunk is wanted. */
const takeScript: Script = {
  name: "millraceTakeChunk",
  whenFull: true,
  lua: `
local batch = redis.call('HMGET', KEYS[1], 'version', 'json', 'begun', 'owner', 'uploader')
if not batch[1] or batch[2] or redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  redis.call('HDEL', KEYS[3], ARGV[2])
  redis.call('HDEL', KEYS[4], ARGV[2])
  return false
end
return {batch[1], batch[4] or batch[5], batch[3] and 1 or 0}`,
};

/** KEYS: batch. ARGV: now (ms). */
const beginScript: Script = {
  name: "millraceBeginBatch",
  whenFull: true,
  lua: `
local batch = redis.call('HMGET', KEYS[1], 'version', 'json')
if batch[1] and not batch[2] and redis.call('HSETNX', KEYS[1], 'started', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'begun', ARGV[1])
end
return 1`,
};

/** A batch counts as started from now on, unless it does already. */
export async function beginBatch(redis: RedisClient, keys: ModelKeys, id: string): Promise<void> {
  await runScript(redis, beginScript, [keys.batch(id)], [Date.now()]);
}

/** A chunk whose outputs are still wanted. */
export interface TakenChunk {
  version: string;
  owner: string;
  /** Whether its batch counts as started already; else `beginBatch` is the taker's to call. */
  begun: boolean;
  bytes: Buffer;
}

/** The inputs of a chunk whose outputs are still wanted, else null. It is no write, which would take as long as an fsync. */
export async function takeChunk(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  number: number,
): Promise<TakenChunk | null> {
  const scriptKeys = [keys.batch(id), keys.batchResults(id), keys.running, keys.deaths];
  // The inputs come beside the step, because Lua would copy them twice.
  const [taken, bytes] = await Promise.all([
    runScript(redis, takeScript, scriptKeys, [number, `${id}-${number}`]) as Promise<[string, string, 0 | 1] | null>,
    redis.hgetBuffer(keys.batchChunks(id), String(number)),
  ]);
  return taken === null || bytes === null ? null : { version: taken[0], owner: taken[1], begun: taken[2] === 1, bytes };
}

/**
 * KEYS: batch, chunks, results, failed. ARGV: id, chunk number, lock token, outputs, succeeded, failed, inputs that failed or
 * "", now (ms), key base, queue prefix, result time (ms), webhook queue prefix, channel prefix, webhook body up to its data.
 */
const finishScript: Script = {
  name: "millraceFinishChunk",
  whenFull: true,
  lua: `
${bullAddLua}
${addChunkJobLua}
${deliverLua}
${endLua}
local id, n, now, base, queue = ARGV[1], ARGV[2], tonumber(ARGV[8]), ARGV[9], ARGV[10]
if redis.call('GET', queue .. id .. '-' .. n .. ':lock') ~= ARGV[3] then return 'lost' end
redis.call('HDEL', base .. '/running', id .. '-' .. n)
redis.call('HDEL', base .. '/deaths', id .. '-' .. n)
local batch = redis.call('HMGET', KEYS[1], 'version', 'json', 'chunks', 'next', 'priority', 'staged', 'started', 'owner',
  'uploader', 'weight')
if not batch[1] or batch[2] then return 'ended' end
if not batch[7] then redis.call('HSET', KEYS[1], 'started', now, 'begun', now) end
if redis.call('HSETNX', KEYS[3], n, ARGV[4]) == 0 then return 'done' end
redis.call('HDEL', KEYS[2], n)
if ARGV[7] ~= '' then redis.call('HSET', KEYS[4], n, ARGV[7]) end
redis.call('HINCRBY', KEYS[1], 'succeeded', ARGV[5])
redis.call('HINCRBY', KEYS[1], 'failed', ARGV[6])
local next, chunks = tonumber(batch[4]), tonumber(batch[3])
if next < (chunks or tonumber(batch[6])) then
  redis.call('HINCRBY', KEYS[1], 'next', 1)
  addChunkJob(queue, id, next, ARGV[8], batch[5], batch[8] or batch[9], batch[10] or 1)
end
local done = redis.call('HINCRBY', KEYS[1], 'done', 1)
if not chunks then
  local left = redis.call('PTTL', KEYS[1])
  for _, key in ipairs({KEYS[3], KEYS[4]}) do redis.call('PEXPIRE', key, left) end
  return 'written'
end
countRows(base, batch[8], 0 - ARGV[5] - ARGV[6])
if done < chunks then return 'written' end
endBatch(base, id, false, now, ARGV[11], ARGV[12], ARGV[13], ARGV[14])
return 'ended batch'`,
};

export interface ChunkFinish {
  id: string;
  number: number;
  token: string;
  /** Outputs, and the inputs of lines that failed or null where none did: chunks of `bulk-chunk.ts`. */
  outputs: Buffer;
  failedInputs: Buffer | null;
  succeeded: number;
  failed: number;
}

export interface BatchEndSettings {
  resultTtlMs: number;
  channelPrefix: string;
}

const completedBody = (nowMs: number): string =>
  `{"type":"batch.completed","timestamp":"${new Date(nowMs).toISOString()}","data":`;

/**
 * Writes a chunk's outputs and, with the last chunk, ends the batch. `written`, `ended batch`: now; `done`: they were there
 * before; `ended`: the batch was over; `lost`: the job is somebody else's by now. In the last three nothing was written.
 */
export async function finishChunk(
  redis: RedisClient,
  keys: ModelKeys,
  finish: ChunkFinish,
  { channelPrefix, resultTtlMs }: BatchEndSettings,
): Promise<"written" | "ended batch" | "done" | "ended" | "lost"> {
  const { failed, failedInputs, id, number, outputs, succeeded, token } = finish;
  const nowMs = Date.now();
  const scriptKeys = [keys.batch(id), keys.batchChunks(id), keys.batchResults(id), keys.batchFailed(id)];
  return (await runScript(redis, finishScript, scriptKeys, [
    id,
    number,
    token,
    outputs,
    succeeded,
    failed,
    failedInputs ?? "",
    nowMs,
    keys.base,
    keys.batchQueue,
    resultTtlMs,
    keys.webhookQueue,
    channelPrefix,
    completedBody(nowMs),
  ])) as "written" | "ended batch" | "done" | "ended" | "lost";
}

/** KEYS: batch. ARGV: id, now (ms), key base, result time (ms), webhook queue prefix, channel prefix, webhook body up to its data. */
const cancelScript: Script = {
  name: "millraceCancelBatch",
  whenFull: true,
  lua: `
${bullAddLua}
${deliverLua}
${endLua}
local batch = redis.call('HMGET', KEYS[1], 'owner', 'json')
if not batch[1] or batch[2] then return false end
return endBatch(ARGV[3], ARGV[1], true, tonumber(ARGV[2]), ARGV[4], ARGV[5], ARGV[6], ARGV[7])`,
};

/** Ends a batch as canceled: what is done is kept, the rest is dropped. Resolves to its JSON, or null where it was final. */
export async function cancelBatch(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  { channelPrefix, resultTtlMs }: BatchEndSettings,
): Promise<string | null> {
  const nowMs = Date.now();
  const args = [id, nowMs, keys.base, resultTtlMs, keys.webhookQueue, channelPrefix, completedBody(nowMs)];
  return (await runScript(redis, cancelScript, [keys.batch(id)], args)) as string | null;
}

/** Reads a batch; null for one that is not known. */
export async function readBatch(redis: RedisClient, keys: ModelKeys, id: string): Promise<BatchRecord | null> {
  return decodeBatch(await redis.hmget(keys.batch(id), ...batchFields));
}

/** The labels of a classifier's batch, in the order of its classes; else null. They may be many, so a batch is read without. */
export async function readLabels(redis: RedisClient, keys: ModelKeys, id: string): Promise<readonly string[] | null> {
  const text = await redis.hget(keys.batch(id), "labels");
  return text === null ? null : (JSON.parse(text) as string[]);
}
