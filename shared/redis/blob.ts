import { setImmediate as nextTurn } from "node:timers/promises";
import type { RedisClient } from "./connect-redis.js";
import { execMulti } from "./exec-multi.js";
import type { ModelKeys } from "./keys.js";
import { expectLargeBuffers } from "./large-buffers.js";

/**
 * A blob: bytes that are too large for a job or a result, in a key of their own, as a list of pieces. A piece is small
 * enough not to delay other users of Redis (a tensor of a MiB is one piece), and a few are sent at a time. The rules
 * that span files:
 * - An input is written before its prediction is accepted, with a TTL. The accepting step removes the TTL, or refuses
 *   where the blob is gone. The step that makes the prediction final deletes it, or gives it the result time.
 * - An output is written under an id of its own before its result, with the result's TTL.
 * So a process that dies in between leaves nothing that does not expire.
 */
const pieceBytes = (1 << 20) + (1 << 16);
const piecesAtOnce = 2;

/** Packs up to this many bytes are part of the job or the result itself, in base64. */
export const largestInlineBytes = 32_768;

/** Lifetime of an input before it is accepted, in ms. */
export const unclaimedTtlMs = 60_000;

/**
 * Writes a blob with a TTL. Rejects when Redis refuses a piece or holds one twice; the pieces that are there expire.
 */
export async function writeBlob(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  bytes: Buffer,
  ttlMs: number,
): Promise<void> {
  const { pieces, written } = await sendBlob(redis, keys, id, bytes, ttlMs);
  await written;
  // A patient connection repeats commands after a break, although Redis may have done them.
  if ((await redis.llen(keys.blob(id))) !== pieces) throw new Error("A piece of the blob was written twice.");
}

/**
 * As `writeBlob`, but resolves once the last pieces are sent: a later step on the same connection can check their
 * number.
 */
export async function sendBlob(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  bytes: Buffer,
  ttlMs: number,
): Promise<{ pieces: number; written: Promise<unknown> }> {
  expectLargeBuffers();
  const key = keys.blob(id);
  const pieces = piecesOf(bytes.length);
  for (let first = 0; ; first += piecesAtOnce) {
    // One transaction, because pieces without a TTL would stay for good if the connection broke in between.
    const multi = redis.multi();
    for (let i = first; i < Math.min(pieces, first + piecesAtOnce); i++) {
      multi.rpush(key, bytes.subarray(i * pieceBytes, (i + 1) * pieceBytes));
    }
    const last = first + piecesAtOnce >= pieces;
    const written = execMulti(multi.pexpire(key, last ? ttlMs : unclaimedTtlMs));
    if (last) return { pieces, written };
    await written;
  }
}

const piecesOf = (bytes: number): number => Math.ceil(bytes / pieceBytes);

/** Reads a blob of that many bytes; null where it is gone or incomplete. */
export async function readBlob(redis: RedisClient, keys: ModelKeys, id: string, bytes: number): Promise<Buffer | null> {
  expectLargeBuffers();
  const key = keys.blob(id);
  const pieces = piecesOf(bytes);
  if (pieces === 1) {
    const piece = await redis.lindexBuffer(key, 0);
    return piece?.length === bytes ? piece : null;
  }
  const blob = Buffer.allocUnsafe(bytes);
  for (let first = 0; first < pieces; first += piecesAtOnce) {
    const count = Math.min(piecesAtOnce, pieces - first);
    const read = await Promise.all(Array.from({ length: count }, (_, i) => redis.lindexBuffer(key, first + i)));
    for (const [i, piece] of read.entries()) {
      const from = (first + i) * pieceBytes;
      if (piece?.length !== Math.min(pieceBytes, bytes - from)) return null;
      piece.copy(blob, from);
    }
    await nextTurn();
  }
  return blob;
}

/** Deletes a blob at once. */
export function dropBlob(redis: RedisClient, keys: ModelKeys, id: string): Promise<unknown> {
  return redis.unlink(keys.blob(id));
}

/** Copies a blob, with a TTL; resolves to the number of pieces, 0 where the source is gone. */
export async function copyBlob(
  redis: RedisClient,
  keys: ModelKeys,
  from: string,
  to: string,
  ttlMs: number,
): Promise<number> {
  await redis.copy(keys.blob(from), keys.blob(to));
  await redis.pexpire(keys.blob(to), ttlMs);
  return redis.llen(keys.blob(to));
}
