import { setImmediate as nextTurn } from "node:timers/promises";
import type { RedisClient } from "./connect-redis.js";
import { execMulti } from "./exec-multi.js";
import type { ModelKeys } from "./keys.js";
import { expectLargeBuffers } from "./large-buffers.js";

/**
 * What is too large for a job or a result: bytes in a key of their own, as a list of pieces. A piece is small enough to
 * hold up nobody who shares Redis (and a tensor of a MiB is one), and a few are on their way at a time. The rules that
 * span files:
 * - An input is written before its prediction is accepted, with a TTL; the accepting step takes the TTL away, or
 *   refuses where the blob is gone. The step that makes the prediction final drops it, or gives it the result time.
 * - An output is written under an id of its own before its result, with the TTL that the result will have. So whoever
 *   dies in between leaves nothing that does not go by itself.
 */
const pieceBytes = (1 << 20) + (1 << 16);
const piecesAtOnce = 2;

/** Packs up to this many bytes are part of the job or the result itself, in base64. */
export const largestInlineBytes = 32_768;

/** How long an input lives that nobody has accepted yet. */
export const unclaimedTtlMs = 60_000;

/**
 * Writes a blob, which has that TTL once it is whole. Rejects when Redis refuses a piece or holds one twice, and leaves
 * what is there to the TTL that it has.
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
  // A patient connection that broke sends again what may have been done.
  if ((await redis.llen(keys.blob(id))) !== pieces) throw new Error("a blob was written with pieces twice");
}

/**
 * As `writeBlob`, but resolves when the last pieces are on their way: a step that is sent after them on the same
 * connection can look whether that many pieces are there.
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
    // One transaction, because pieces without a TTL would stay for good where the connection broke in between.
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

/** Reads a blob of that many bytes; null where it is gone or not whole. */
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

/** Drops a blob at once. */
export function dropBlob(redis: RedisClient, keys: ModelKeys, id: string): Promise<unknown> {
  return redis.unlink(keys.blob(id));
}

/** Makes a blob that is a copy of another, with a TTL; resolves to its pieces, 0 where the other is gone. */
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
