import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import { promisify } from "node:util";
import { constants, createDeflate, createGzip, deflate, gzip } from "node:zlib";
import type { Request, Response } from "express";
import { acceptedEncoding } from "../http/http-preferences.js";

/** Below this, compressing costs more than it saves. */
const smallestEncodedBytes = 1024;
/** Tensors rarely get much smaller, so that more effort would be for nothing. */
const options = { level: constants.Z_BEST_SPEED };
const whole = { gzip: promisify(gzip), deflate: promisify(deflate) };
const streaming = { gzip: createGzip, deflate: createDeflate };

/** Sends a body that is there already, in an encoding that the client accepts where it is large enough. */
export async function sendEncoded(request: Request, response: Response, parts: readonly Uint8Array[]): Promise<void> {
  const bytes = parts.reduce((sum, part) => sum + part.length, 0);
  const encoding = bytes < smallestEncodedBytes ? null : encodingOf(request);
  response.vary("Accept-Encoding");
  if (encoding !== null) {
    response.setHeader("Content-Encoding", encoding);
    const encoded = await whole[encoding](Buffer.concat(parts), options);
    response.setHeader("Content-Length", encoded.length);
    response.end(encoded);
    return;
  }
  response.setHeader("Content-Length", bytes);
  // Large parts are sent from where they are.
  response.cork();
  for (const part of parts) response.write(part);
  response.end();
  response.uncork();
}

/**
 * Sends text while it is being made, with turns of the event loop in between, for bodies that are too large to hold.
 */
export async function streamEncoded(request: Request, response: Response, pieces: Iterable<string>): Promise<void> {
  const encoding = encodingOf(request);
  response.vary("Accept-Encoding");
  const source = Readable.from(inTurns(pieces), { objectMode: false });
  try {
    if (encoding === null) await pipeline(source, response);
    else {
      response.setHeader("Content-Encoding", encoding);
      await pipeline(source, streaming[encoding](options), response);
    }
  } catch (fault) {
    // Who has gone away needs no answer.
    if (!response.destroyed) throw fault;
  }
}

async function* inTurns(pieces: Iterable<string>): AsyncGenerator<Buffer> {
  for (const piece of pieces) {
    yield Buffer.from(piece);
    await nextTurn();
  }
}

const encodingOf = (request: Request) => acceptedEncoding(request, ["gzip", "deflate"] as const);
