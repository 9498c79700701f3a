import type { BatchRecord } from "@millrace/shared/predictions/batch.js";
import { decodeChunk } from "@millrace/shared/predictions/bulk-chunk.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { linesAtOnce, type ResultFormat, type ResultPiece } from "./format-results.js";

/** Chunks that are read ahead of the text's reader. */
const readAhead = 1;

/**
 * The results of a batch from line `from` on, `most` of them, as text in pieces, in input order: of a final batch all
 * of them, of a running one those that are done without a gap. Never holds more than a few chunks. Throws
 * `batch_not_found` where results expire while they are read.
 */
export async function* resultPieces(
  redis: RedisClient,
  keys: ModelKeys,
  id: string,
  batch: BatchRecord,
  format: ResultFormat,
  from: number,
  most = Number.POSITIVE_INFINITY,
): AsyncGenerator<ResultPiece> {
  const end = from + most;
  const read = (number: number) => {
    const bytes = redis.hgetBuffer(keys.batchResults(id), String(number));
    // It is awaited in its turn; until then a failure must not count as unhandled.
    bytes.catch(() => undefined);
    return bytes;
  };
  // From the beginning on, as most read, the first chunk is known without the counts.
  const first = from === 0 && batch.chunks > 0 ? read(0) : null;
  const counts = await redis.getBuffer(keys.batchLines(id));
  if (counts === null) throw expired();
  let number = 0;
  let start = 0;
  while (number < batch.chunks && start + counts.readUInt32LE(4 * number) <= from) {
    start += counts.readUInt32LE(4 * number);
    number += 1;
  }
  let canceled = 0;
  const reads: Promise<Buffer | null>[] = first === null ? [] : [first];
  let next = number + reads.length;
  for (; number < batch.chunks && start < end; number++) {
    for (; next < batch.chunks && next <= number + readAhead; next++) reads.push(read(next));
    const bytes = await reads.shift();
    const lines = counts.readUInt32LE(4 * number);
    const skip = Math.max(0, from - start);
    if (bytes != null) yield* format.chunk(decodeChunk(bytes), start, skip, end - start);
    else if (batch.json === null) return;
    else {
      canceled += lines;
      if (canceled > batch.canceled) throw expired();
      const last = Math.min(lines, end - start);
      for (let line = skip; line < last; line += linesAtOnce) {
        const count = Math.min(linesAtOnce, last - line);
        const texts = Array.from({ length: count }, (_, i) => format.canceled(start + line + i));
        yield { text: texts.join(""), lines: count, whole: true };
      }
    }
    start += lines;
  }
}

const expired = () => new ServiceError("batch_not_found", "The batch's results have expired.");
