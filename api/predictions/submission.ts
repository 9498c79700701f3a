import type { IncomingMessage } from "node:http";
import { canonical } from "@millrace/shared/predictions/canonical-json.js";
import { predictionEvents } from "@millrace/shared/predictions/delivery.js";
import { compactJson } from "@millrace/shared/predictions/raw-member.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { z } from "zod";
import { invalidRequest, parseBody } from "../http/read-json.js";

const yearMs = 366 * 86_400_000;
const largestMetadataBytes = 4096;
const deepestMetadata = 32;

/** A webhook as an object, or as its URL alone, which asks for the usual event. */
export function webhookSchema<const Event extends string>(events: readonly [Event, ...Event[]], usual: NoInfer<Event>) {
  const object = z.strictObject({ url: z.string(), events: z.array(z.enum(events)).min(1).default([usual]) });
  const { $schema: _, ...objectJson } = z.toJSONSchema(object, { io: "input" });
  return z
    .preprocess((webhook) => (typeof webhook === "string" ? { url: webhook } : webhook), object)
    .meta({ anyOf: [{ type: "string", format: "uri" }, objectJson] });
}

/** A caller's metadata: an object, and not a record, which would drop a key like __proto__ in silence. */
export const metadataSchema = z
  .custom<Record<string, unknown>>((value) => typeof value === "object" && value !== null && !Array.isArray(value), {
    error: "expected an object",
  })
  .superRefine((metadata, context) => {
    const fault = metadataFault(metadata);
    if (fault !== null) context.addIssue({ code: "custom", message: fault });
  });

/** The body of a submission. */
export const submissionSchema = z
  .strictObject({
    input: z.unknown(),
    version: z.string().max(16).optional(),
    priority: z.int().min(0).max(1000).default(0),
    delay_ms: z.int().min(0).max(yearMs).default(0),
    expires_in_ms: z.int().min(0).max(yearMs).default(0),
    cache: z.boolean().default(true),
    metadata: metadataSchema.optional(),
    webhook: webhookSchema(predictionEvents, "prediction.completed").optional(),
  })
  .superRefine((body, context) => {
    if (body.input === undefined) context.addIssue({ code: "custom", path: ["input"], message: "is required" });
    if (body.expires_in_ms > 0 && body.expires_in_ms <= body.delay_ms) {
      context.addIssue({ code: "custom", path: ["expires_in_ms"], message: "must exceed delay_ms, or be 0" });
    }
  })
  .meta({ id: "Submission" });

export type Submission = z.infer<typeof submissionSchema>;

/** Reads a submission. Throws `invalid_request` with everything that is wrong with it. */
export const parseSubmission = (body: unknown): Submission => parseBody(submissionSchema, body);

/**
 * The text of metadata as they were written, but for the space between tokens; undefined where there are none. Throws
 * `invalid_request` where that is too long.
 */
export function compactMetadata(raw: string | undefined): string | undefined {
  if (raw === undefined) return undefined;
  const text = compactJson(raw);
  const bytes = Buffer.byteLength(text);
  if (bytes <= largestMetadataBytes) return text;
  throw invalidRequest([{ detail: tooLarge(bytes), pointer: "/metadata" }]);
}

const tooLarge = (bytes: number) => `may have ${largestMetadataBytes} bytes at the most, has ${bytes}`;

/** Metadata is handed back as JSON, so it must be small, and flat enough to be written. */
function metadataFault(metadata: Record<string, unknown>): string | null {
  if (typeof metadata !== "object" || metadata === null) return null;
  let level: unknown[] = [metadata];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > deepestMetadata) return `may be nested ${deepestMetadata} deep at the most`;
    level = level.flatMap((value) => (typeof value === "object" && value !== null ? Object.values(value) : []));
  }
  const bytes = Buffer.byteLength(JSON.stringify(metadata));
  return bytes > largestMetadataBytes ? tooLarge(bytes) : null;
}

/**
 * What an idempotency key is held against: the same fields with the same values, however they were spaced; `sorted`: in
 * whatever order the members of objects stand, too.
 */
export function submissionHashes(submission: Submission): { exact: string; sorted: string } {
  const { input, metadata } = submission;
  const inOrder = { ...submission, input: canonical(input), ...(metadata && { metadata: canonical(metadata) }) };
  const same = inOrder.input === input && inOrder.metadata === metadata;
  const exact = digestOf(JSON.stringify(submission));
  return { exact, sorted: same ? exact : digestOf(JSON.stringify(inOrder)) };
}

/**
 * The key of the `Idempotency-Key` header, quoted as a structured-field string or bare; null where there is none.
 * Throws `bad_header` for what is no key, and for two of them, which would be one by the time that Node has joined
 * them.
 */
export function idempotencyKeyOf({ headers, rawHeaders }: IncomingMessage): string | null {
  const header = headers["idempotency-key"];
  if (header === undefined) return null;
  // Names and values in turn.
  const sent = rawHeaders.filter((text, i) => i % 2 === 0 && text.toLowerCase() === "idempotency-key").length;
  if (sent > 1) throw new ServiceError("bad_header", "There must be at most one Idempotency-Key header.");
  const text = String(header).trim();
  const key = /^"((?:[^"\\]|\\["\\])*)"$/.exec(text)?.[1]?.replaceAll(/\\(["\\])/g, "$1") ?? text;
  if (!/^[ -~]{1,255}$/.test(key) || (text.startsWith('"') && key === text)) {
    throw new ServiceError("bad_header", "Idempotency-Key must have 1 to 255 printable ASCII characters.");
  }
  return key;
}

/** The fault of a key that came with another body before. */
export const usedForAnother = (): ServiceError =>
  new ServiceError("idempotency_mismatch", "This Idempotency-Key was used with another body.");
