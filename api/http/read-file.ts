import { pointerSegment, ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, RequestHandler, Response } from "express";
import { ChunkGuard } from "./read-body.js";
import { bodyTooLarge } from "./read-upload.js";

/** Reads the one file of a multipart body. Throws what a client is told where there is none, or more. */
export function fileReader(
  field: string,
  largestBytes: number,
): (request: Request, response: Response) => Promise<Buffer> {
  // One more than is taken of each, so that the one that is too many can be named.
  const limits = { fileSize: largestBytes, files: 2, fields: 1, parts: 3, fieldSize: 1000, headerPairs: 20 };
  let opened: Promise<RequestHandler> | null = null;
  // Loaded when somebody first sends a file: most APIs never see one.
  const open = async () => {
    const { default: multer } = await import("multer");
    return multer({ storage: multer.memoryStorage(), limits }).single(field);
  };
  return async (request, response) => {
    if (!/^multipart\/form-data\s*;/i.test(request.headers["content-type"] ?? "")) {
      throw new ServiceError("unsupported_media_type", "Send multipart/form-data.");
    }
    if ((request.headers["content-encoding"] ?? "identity").toLowerCase() !== "identity") {
      throw new ServiceError("malformed_body", "Send multipart/form-data without Content-Encoding.");
    }
    // A second file is refused by its name, so there is room for one.
    if (Number(request.headers["content-length"] ?? 0) > 2 * largestBytes + largestOverheadBytes)
      throw tooLarge(largestBytes);
    opened ??= open();
    const read = await opened;
    await new Promise<void>((resolve, reject) => {
      const guard = new ChunkGuard();
      const onData = (chunk: Buffer) => {
        const fault = guard.count(chunk);
        if (fault === null) return;
        request.off("data", onData);
        request.unpipe();
        reject(fault);
      };
      request.on("data", onData);
      read(request, response, (fault: unknown) =>
        fault ? reject(asServiceError(fault, field, largestBytes)) : resolve(),
      );
    });
    const [other] = Object.keys(request.body ?? {});
    if (other !== undefined) throw invalid(other === field ? "expected a file" : `unknown field "${other}"`, other);
    if (request.file === undefined) throw invalid(`the file "${field}" is missing`, field);
    return request.file.buffer;
  };
}

/** Of what is in the body beside files. */
const largestOverheadBytes = 65_536;

const tooLarge = (largestBytes: number) => bodyTooLarge("file", largestBytes, "MAX_FILE_BYTES");

const invalid = (detail: string, field: string) =>
  new ServiceError("invalid_request", detail, { complaints: [{ detail, pointer: pointerSegment(field) }] });

function asServiceError(fault: unknown, field: string, largestBytes: number): unknown {
  const { code, field: named, name } = fault as { name?: string; code?: string; field?: string };
  // What cannot be read at all is the sender's, and no limit of ours.
  if (name !== "MulterError")
    return new ServiceError("malformed_body", "The body is not multipart/form-data.", { cause: fault });
  if (code === "LIMIT_FILE_SIZE") return tooLarge(largestBytes);
  const where = named ?? field;
  if (code === "LIMIT_UNEXPECTED_FILE" && where !== field) return invalid(`unknown field "${where}"`, where);
  return invalid(`send one file, "${field}", and no other field`, where);
}
