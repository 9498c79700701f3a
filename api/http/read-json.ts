import { isUtf8 } from "node:buffer";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, RequestHandler, Response } from "express";
import { BytePieces } from "./byte-pieces.js";
import { type JsonLimits, parseCheckedJson } from "./check-json.js";
import { readUpload } from "./read-upload.js";

/** Takes from the bytes of a body what its value, which is in `request.body`, has lost. */
export type ReadExactly = (bytes: Buffer, request: Request, response: Response) => void;

export interface JsonBodyLimits extends JsonLimits {
  /** Of the body, unpacked. */
  maxBodyBytes: number;
}

const idleMs = 60_000;
/** Each chunk costs as much as hundreds of bytes, so chunks of a few bytes are taken only as long as they are few. */
const manyPieces = 10_000;
const smallestPieceBytes = 16;

/**
 * Reads a JSON body into `request.body`. What is too large is refused as soon as that is known, not when all of it has
 * come, which is why this is not the usual middleware. `readExactly` is given the bytes of what is JSON.
 */
export function jsonBody(limits: JsonBodyLimits, readExactly?: ReadExactly): RequestHandler {
  return (request, response, next) => {
    expectUtf8(request);
    const done = (bytes: Buffer) => {
      try {
        if (!isUtf8(bytes)) throw new ServiceError("malformed_json", "the body is not UTF-8");
        request.body = parseCheckedJson(bytes, limits);
        readExactly?.(bytes, request, response);
      } catch (fault) {
        return next(fault);
      }
      next();
    };
    if (request.headers["content-encoding"] !== undefined) {
      readPacked(request, limits.maxBodyBytes).then(done, next);
    } else readPlain(request, limits.maxBodyBytes, done, next);
  };
}

function readPlain(
  request: Request,
  maxBytes: number,
  done: (bytes: Buffer) => void,
  failed: (fault: unknown) => void,
): void {
  const announcedBytes = Number(request.headers["content-length"] ?? 0);
  if (announcedBytes > maxBytes) {
    failed(tooLarge());
    return;
  }
  // Mostly all of it comes at once.
  let first: Buffer | null = null;
  const pieces = new BytePieces(announcedBytes);
  let count = 0;
  const refuse = (fault: ServiceError) => {
    pieces.clear();
    request.off("data", onData);
    request.off("end", onEnd);
    failed(fault);
  };
  const onData = (piece: Buffer) => {
    count += 1;
    if (first === null && piece.length <= maxBytes) {
      first = piece;
      return;
    }
    if (pieces.length === 0 && first !== null) pieces.push(first);
    if (pieces.length + piece.length > maxBytes) return refuse(tooLarge());
    pieces.push(piece);
    if (count > manyPieces && pieces.length < smallestPieceBytes * count) {
      refuse(new ServiceError("malformed_request", "the chunks of the body are too small"));
    }
  };
  const onEnd = () => done(pieces.length === 0 && first !== null ? first : pieces.take());
  request.on("data", onData);
  request.on("end", onEnd);
  // A caller who goes away in the middle is owed no answer.
  request.on("error", () => undefined);
}

async function readPacked(request: Request, maxBytes: number): Promise<Buffer> {
  const pieces = new BytePieces();
  await readUpload(request, {
    maxBytes,
    limitName: "MAX_BODY_BYTES",
    digest: false,
    idleMs,
    async onBytes(bytes) {
      pieces.push(bytes);
    },
  });
  return pieces.take();
}

const tooLarge = () => new ServiceError("body_too_large", "the body is larger than MAX_BODY_BYTES");

const charset = /;\s*charset\s*=\s*"?([^";\s]*)/i;

/** JSON between systems is UTF-8 (RFC 8259); in another alphabet the same bytes would say something else. */
function expectUtf8(request: Request): void {
  const named = charset.exec(request.headers["content-type"] ?? "")?.[1]?.toLowerCase();
  if (named !== undefined && named !== "utf-8" && named !== "utf8" && named !== "us-ascii") {
    throw new ServiceError("unsupported_media_type", "JSON is UTF-8");
  }
}
