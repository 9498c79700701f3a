import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Duplex, Readable } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import { ServiceError } from "@millrace/shared/service/errors.js";

export interface UploadOptions {
  maxBytes: number;
  /** The setting that `maxBytes` is from; null for a fixed limit. */
  limitName: string | null;
  /** Whether to make a digest of the body, which costs. */
  digest: boolean;
  /** An upload of which nothing arrives for so long is broken off. */
  idleMs: number;
  /**
   * Called with each piece, unpacked; the next one is read when it resolves. `sentBytes`: what the sender is credited
   * with so far, which is what may be kept for it.
   */
  onBytes(bytes: Buffer, sentBytes: number): Promise<void>;
}

/** A body that unpacks to more than this many times its size is no data, at least not beyond the first of it. */
const likelyRatio = 100;
const freeBytes = 64 * 1024;
/** Unpacked bytes that a sender is credited with, at most, for each byte that was sent. */
const creditedRatio = 20;

/**
 * Reads a body at the pace of `onBytes`, unpacked where it is packed, and resolves to its digest or "". Rejects with
 * `body_too_large` as soon as it is, with `malformed_body` where it cannot be unpacked, and when the client goes away.
 */
export async function readUpload(request: IncomingMessage, options: UploadOptions): Promise<string> {
  const { limitName, maxBytes, onBytes } = options;
  const tooLarge = () => bodyTooLarge("body", maxBytes, limitName);
  const encoding = String(request.headers["content-encoding"] ?? "identity").toLowerCase();
  const packed = encoding !== "identity";
  if (!packed && Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLarge();
  const source = packed ? unpacked(request, encoding) : request;
  const digest = options.digest ? createHash("sha256") : null;
  let arrived = 0;
  if (packed) request.on("data", (bytes: Buffer) => (arrived += bytes.length));
  let total = 0;
  /** Whether a fault is one of the upload itself, not of what is done with it. */
  let reading = true;
  const idle = setTimeout(() => request.destroy(new Error("nothing arrives")), options.idleMs);
  try {
    for await (const bytes of source.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      idle.refresh();
      total += bytes.length;
      if (total > maxBytes) throw tooLarge();
      if (packed && total > freeBytes + likelyRatio * arrived) {
        const detail = `The body unpacks to over ${likelyRatio} times its size. Send it with less compression.`;
        throw new ServiceError("body_too_large", detail);
      }
      digest?.update(bytes);
      reading = false;
      await onBytes(bytes, packed ? Math.min(total, creditedRatio * arrived) : total);
      reading = true;
    }
  } catch (fault) {
    if (packed) request.unpipe();
    if (!reading || fault instanceof ServiceError) throw fault;
    throw new ServiceError("malformed_body", unpackingFault(fault, encoding) ?? "The upload broke off.");
  } finally {
    clearTimeout(idle);
    if (source !== request) source.destroy();
  }
  return digest === null ? "" : digest.digest("base64url");
}

/** `body_too_large` with the limit in bytes, and the setting that it is from. */
export function bodyTooLarge(subject: string, maxBytes: number, limitName: string | null): ServiceError {
  const setting = limitName === null ? "" : ` (${limitName})`;
  return new ServiceError("body_too_large", `The ${subject} is larger than ${maxBytes} bytes${setting}.`);
}

/** What is wrong with a packed body; null for a fault of another kind. */
function unpackingFault(fault: unknown, encoding: string): string | null {
  const { code = "" } = fault as NodeJS.ErrnoException;
  if (!/^(Z_|ERR__)/.test(code)) return null;
  const remedy = `Send it packed as ${encoding}, or without Content-Encoding.`;
  return code === "Z_BUF_ERROR"
    ? `The body ends before its ${encoding} data do. ${remedy}`
    : `The body is not ${encoding}, as its Content-Encoding says, or is damaged. ${remedy}`;
}

const openers: Record<string, (() => Duplex) | undefined> = Object.assign(Object.create(null), {
  gzip: createGunzip,
  "x-gzip": createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
});

function unpacked(request: IncomingMessage, encoding: string): Readable {
  const opened = openers[encoding];
  if (opened === undefined) {
    throw new ServiceError("unsupported_media_type", "Content-Encoding must be gzip, deflate, br or identity.", {
      headers: { "Accept-Encoding": "gzip, deflate, br" },
    });
  }
  const stream = opened();
  const broken = (fault: Error) => stream.destroy(fault);
  request.on("error", broken);
  request.on("close", () => {
    if (!request.complete) broken(new Error("the client went away"));
  });
  request.pipe(stream);
  return stream;
}
