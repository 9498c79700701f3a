import { isUtf8 } from "node:buffer";
import { ServiceError } from "@millrace/shared/errors.js";
import type { Request, RequestHandler } from "express";
import { passOver, readUpload } from "./batches/read-upload.js";
import { type JsonLimits, parseCheckedJson } from "./check-json.js";

export interface JsonBodyLimits extends JsonLimits {
  /** Of the body, unpacked. */
  maxBodyBytes: number;
}

const idleMs = 60_000;

/**
 * Reads a JSON body into `request.body`. What is too large is refused as soon as that is known, not when all of it has
 * come, which is why this is not the usual middleware.
 */
export function jsonBody(limits: JsonBodyLimits): RequestHandler {
  return (request, _response, next) => {
    expectUtf8(request);
    const done = (bytes: Buffer) => {
      try {
        if (!isUtf8(bytes)) throw new ServiceError("malformed_json", "the body is not UTF-8");
        request.body = parseCheckedJson(bytes, limits);
      } catch (fault) {
        return next(fault);
      }
      next();
    };
    const failed = (fault: unknown) => {
      next(fault);
      passOver(request);
    };
    if (request.headers["content-encoding"] !== undefined) {
      readPacked(request, limits.maxBodyBytes).then(done, failed);
    } else readPlain(request, limits.maxBodyBytes, done, failed);
  };
}

function readPlain(
  request: Request,
  maxBytes: number,
  done: (bytes: Buffer) => void,
  failed: (fault: unknown) => void,
): void {
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) {
    failed(tooLarge());
    return;
  }
  const pieces: Buffer[] = [];
  let total = 0;
  const onData = (piece: Buffer) => {
    total += piece.length;
    if (total <= maxBytes) {
      pieces.push(piece);
      return;
    }
    request.off("data", onData);
    request.off("end", onEnd);
    failed(tooLarge());
  };
  const onEnd = () => done(pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces, total));
  request.on("data", onData);
  request.on("end", onEnd);
  // A caller who goes away in the middle is owed no answer.
  request.on("error", () => undefined);
}

async function readPacked(request: Request, maxBytes: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  await readUpload(request, {
    maxBytes,
    limitName: "MAX_BODY_BYTES",
    digest: false,
    idleMs,
    async onBytes(bytes) {
      pieces.push(bytes);
    },
  });
  return Buffer.concat(pieces);
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
