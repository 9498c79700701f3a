import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, RequestHandler } from "express";
import { BytePieces } from "./byte-pieces.js";
import { bodyTooLarge, readUpload } from "./read-upload.js";

/** Size limit of a body. */
export interface BodyLimits {
  /** Of the body, unpacked. */
  maxBytes: number;
  /** The setting that `maxBytes` is from; null for a fixed limit. */
  limitName: string | null;
}

const idleMs = 60_000;

/**
 * Reads a body that is wanted as a whole, unpacked where it is packed, and calls `done` with its bytes. Calls `failed`
 * with `body_too_large` as soon as that is known, and with `malformed_request` for a body in tiny chunks. The usual
 * middleware refuses a body only when all of it has come, and keeps an object for every chunk until then.
 */
export function readBody(
  request: Request,
  limits: BodyLimits,
  done: (bytes: Buffer) => void,
  failed: (fault: unknown) => void,
): void {
  if (request.headers["content-encoding"] === undefined) readPlain(request, limits, done, failed);
  else readPacked(request, limits).then(done, failed);
}

/**
 * Reads a body into `request.body` as a Buffer, whatever type it says it is; `limitsOf` chooses the limits by its
 * headers.
 */
export function bytesBody(limitsOf: (request: Request) => BodyLimits): RequestHandler {
  return (request, _response, next) => {
    const done = (bytes: Buffer) => {
      request.body = bytes;
      next();
    };
    readBody(request, limitsOf(request), done, next);
  };
}

/** Each chunk costs as much as hundreds of bytes, so chunks of a few bytes are taken only as long as they are few. */
export class ChunkGuard {
  #chunks = 0;
  #bytes = 0;

  /** Counts a chunk; the fault to refuse the body with, or null. */
  count(chunk: Buffer): ServiceError | null {
    this.#chunks += 1;
    this.#bytes += chunk.length;
    if (this.#chunks <= manyChunks || this.#bytes >= smallestChunkBytes * this.#chunks) return null;
    return new ServiceError("malformed_request", "The chunks of the body are too small. Send larger chunks.");
  }
}

const manyChunks = 10_000;
const smallestChunkBytes = 16;

function readPlain(
  request: Request,
  { limitName, maxBytes }: BodyLimits,
  done: (bytes: Buffer) => void,
  failed: (fault: unknown) => void,
): void {
  const tooLarge = () => bodyTooLarge("body", maxBytes, limitName);
  const announcedBytes = Number(request.headers["content-length"] ?? 0);
  if (announcedBytes > maxBytes) {
    failed(tooLarge());
    return;
  }
  // Mostly all of it comes at once.
  let first: Buffer | null = null;
  const pieces = new BytePieces(announcedBytes);
  const guard = new ChunkGuard();
  const refuse = (fault: ServiceError) => {
    pieces.clear();
    request.off("data", onData);
    request.off("end", onEnd);
    failed(fault);
  };
  const onData = (piece: Buffer) => {
    const fault = guard.count(piece);
    if (fault !== null) return refuse(fault);
    if (first === null && piece.length <= maxBytes) {
      first = piece;
      return;
    }
    if (pieces.length === 0 && first !== null) pieces.push(first);
    if (pieces.length + piece.length > maxBytes) return refuse(tooLarge());
    pieces.push(piece);
  };
  const onEnd = () => done(pieces.length === 0 && first !== null ? first : pieces.take());
  request.on("data", onData);
  request.on("end", onEnd);
  // A caller who goes away in the middle is owed no answer.
  request.on("error", () => undefined);
}

async function readPacked(request: Request, limits: BodyLimits): Promise<Buffer> {
  const pieces = new BytePieces();
  const guard = new ChunkGuard();
  let fault: ServiceError | null = null;
  request.on("data", (chunk: Buffer) => {
    fault ??= guard.count(chunk);
  });
  await readUpload(request, {
    ...limits,
    digest: false,
    idleMs,
    onBytes: async (bytes) => {
      if (fault !== null) throw fault;
      pieces.push(bytes);
    },
  });
  if (fault !== null) throw fault;
  return pieces.take();
}
