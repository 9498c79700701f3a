import { Cluster } from "ioredis";
import type { RedisClient } from "../../redis/connect-redis.js";
import { execMulti } from "../../redis/exec-multi.js";
import type { ModelKeys } from "../../redis/keys.js";
import { fairLua } from "../queue/fair-queue.js";
import { runScript, type Script } from "../queue/script.js";

/**
 * Staging, which rests on these rules:
 * - What is staged expires, all keys of it, and no request leads to it; only the commit in `batches.ts` makes it a batch.
 * - Chunks may be run from when they are staged, so that a batch is not run after its upload but beside it. Until the
 *   commit its hash says for which version, and counts what is done; what a broken upload leaves in the queue finds nothing.
 */
export const chunkJobName = "chunk";

/** Chunk jobs of a batch that are in the queue at once. */
export const windowChunks = 64;

/**
 * Lua: `addChunkJob(queue, batch id, chunk number, now, priority, owner, weight)` adds a chunk's job, unless it is there, to those
 * of its owner; see `fair-queue.ts`.
 */
export const addChunkJobLua = `
${fairLua}
local function addChunkJob(queue, id, n, now, priority, owner, weight)
  local job = id .. '-' .. n
  if redis.call('EXISTS', queue .. job) == 1 then return end
  local lines = redis.call('GETRANGE', string.match(queue, '^.-}') .. '/batch-lines:' .. id, 4 * n, 4 * n + 3)
  local rows = #lines == 4 and math.max(1, struct.unpack('<I4', lines)) or 1
  local text = rows .. ' 0 ' .. priority .. ' ' .. weight .. ' ' .. owner
  local share = fairShare(text)
  redis.call('HSET', queue .. job, 'name', '${chunkJobName}', 'data', '{"v":1,"b":"' .. id .. '","n":' .. n .. '}',
    'opts', '{}', 'timestamp', now, 'delay', 0, 'priority', 0, 'share', text)
  local line = fairOpen(queue)
  fairAdd(line, job, share, redis.call('INCR', queue .. 'id'))
  fairClose(line)
  fairLoad(queue, {share}, 1)
  redis.call('ZADD', queue .. 'marker', 0, '0')
end
`;

/** How chunks are run before their batch is accepted. */
export interface EarlyRun {
  /** Whose upload it is; the batch itself has an owner only once it is accepted. */
  uploader: string;
  weight: number;
  version: string;
  priority: number;
}

/** All keys that a batch may have before it is one. */
const stagedKeys = (keys: ModelKeys, id: string): string[] => [
  keys.batch(id),
  keys.batchChunks(id),
  keys.batchLines(id),
  keys.batchResults(id),
  keys.batchFailed(id),
];

/** KEYS: batch, chunks, results, failed. ARGV: id, chunk number, now (ms), queue prefix, version, priority, time to keep them (ms), uploader, weight. */
const earlyScript: Script = {
  name: "millraceRunEarly",
  lua: `
${addChunkJobLua}
local n = tonumber(ARGV[2])
if redis.call('HEXISTS', KEYS[2], n) == 0 or redis.call('HEXISTS', KEYS[1], 'owner') == 1 then return 0 end
local batch = redis.call('HMGET', KEYS[1], 'next', 'done')
local next, done = tonumber(batch[1] or 0), tonumber(batch[2] or 0)
while next <= n and next - done < ${windowChunks} do
  addChunkJob(ARGV[4], ARGV[1], next, ARGV[3], ARGV[6], ARGV[8], ARGV[9])
  next = next + 1
end
redis.call('HSET', KEYS[1], 'version', ARGV[5], 'priority', ARGV[6], 'uploader', ARGV[8], 'weight', ARGV[9],
  'staged', n + 1, 'next', next)
for _, key in ipairs({KEYS[1], KEYS[3], KEYS[4]}) do redis.call('PEXPIRE', key, ARGV[7]) end
return 1`,
};

/** Keeps a chunk of a batch that is still being uploaded, and lets it run where `early` is given; what was staged before is kept as long. */
export async function stageChunk(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  chunk: { number: number; lines: number; bytes: Buffer },
  keepMs: number,
  early: EarlyRun | null = null,
): Promise<void> {
  const [batch, chunks, , results, failed] = stagedKeys(keys, id) as [string, string, string, string, string];
  const written = writeChunk(redis, keys, id, chunk, keepMs);
  if (early === null) return written;
  const { priority, uploader, version, weight } = early;
  const args = [id, chunk.number, Date.now(), keys.batchQueue, version, priority, keepMs, uploader, weight];
  await Promise.all([written, runScript(redis, earlyScript, [batch, chunks, results, failed], args)]);
}

/** One transaction, and not a step of Lua, which takes ten times as long for so large an argument. */
async function writeChunk(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  { bytes, lines, number }: { number: number; lines: number; bytes: Buffer },
  keepMs: number,
): Promise<void> {
  const [chunksKey, linesKey] = [keys.batchChunks(id), keys.batchLines(id)];
  const count = Buffer.alloc(4);
  count.writeUInt32LE(lines);
  if (redis instanceof Cluster) {
    return execMulti(
      redis
        .multi()
        .hset(chunksKey, String(number), bytes)
        .setrange(linesKey, 4 * number, count)
        .pexpire(chunksKey, keepMs)
        .pexpire(linesKey, keepMs),
    );
  }
  // Command by command, because a pipeline copies all of it once more; they go out together all the same.
  await Promise.all([
    redis.multi({ pipeline: false }),
    redis.hset(chunksKey, String(number), bytes),
    redis.setrange(linesKey, 4 * number, count),
    redis.pexpire(chunksKey, keepMs),
    redis.pexpire(linesKey, keepMs),
    redis.exec(),
  ]);
}

/** Keeps what is staged for so long from now on. */
export async function keepStaged(redis: RedisClient, keys: ModelKeys, id: string, keepMs: number): Promise<void> {
  await Promise.all(stagedKeys(keys, id).map((key) => redis.pexpire(key, keepMs)));
}

/** Drops what was staged for an upload that broke off. */
export async function dropStaged(redis: RedisClient, keys: ModelKeys, id: string): Promise<void> {
  await redis.unlink(...stagedKeys(keys, id));
}

/** KEYS: failed lines of the batch before, chunks, lines. ARGV: time to keep them (ms), then chunk numbers there. */
const stageFailedScript: Script = {
  name: "millraceStageFailed",
  lua: `
local total = 0
local n = redis.call('HLEN', KEYS[2])
for i = 2, #ARGV do
  local chunk = redis.call('HGET', KEYS[1], ARGV[i])
  if chunk then
    local lines = struct.unpack('<I4', chunk, 5)
    redis.call('HSET', KEYS[2], n, chunk)
    redis.call('SETRANGE', KEYS[3], 4 * n, struct.pack('<I4', lines))
    n = n + 1
    total = total + lines
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[1])
return total`,
};

/** Stages chunks of another batch's failed lines; resolves to how many lines that are. */
export async function stageFailed(
  redis: RedisClient,
  keys: ModelKeys,
  from: string,
  to: string,
  numbers: readonly string[],
  keepMs: number,
): Promise<number> {
  const scriptKeys = [keys.batchFailed(from), keys.batchChunks(to), keys.batchLines(to)];
  return (await runScript(redis, stageFailedScript, scriptKeys, [keepMs, ...numbers])) as number;
}
