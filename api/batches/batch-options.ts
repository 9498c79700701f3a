import { ServiceError } from "@millrace/shared/service/errors.js";
import { z } from "zod";
import { parseCheckedJson } from "../http/check-json.js";
import { parseBody } from "../http/read-json.js";
import { compactMetadata, metadataSchema, webhookSchema } from "../predictions/submission.js";

/** 4 KiB hold no more. */
const mostMetadataKeys = 1000;

/** Options of a batch beside its inputs. */
export const batchOptionsSchema = z.strictObject({
  version: z.string().max(16).optional(),
  priority: z.int().min(0).max(1000).default(0),
  cache: z.boolean().default(true),
  max_failed_rows: z
    .number()
    .min(0)
    .max(0xffff_ffff)
    .refine((most) => most < 1 || Number.isInteger(most), "must be a whole number, or a part such as 0.05")
    .optional()
    .meta({ description: "Ends the batch as failed when more rows have failed: a number, or a part below 1 of all" }),
  metadata: metadataSchema.optional(),
  webhook: webhookSchema(["batch.completed"], "batch.completed").optional(),
});

export type BatchOptions = z.infer<typeof batchOptionsSchema>;

/** The number of rows of `total` that may fail before the batch ends; null: all. */
export function mostFailedRows({ max_failed_rows: most }: BatchOptions, total: number): number | null {
  if (most === undefined) return null;
  return most > 0 && most < 1 ? Math.floor(most * total) : most;
}

/**
 * Reads options that stood beside the inputs of a JSON body. Throws `invalid_request` with everything that is wrong.
 */
export const parseBatchOptions = (options: Record<string, unknown>): BatchOptions =>
  parseBody(batchOptionsSchema, options);

/** The metadata that a query names, as the caller wrote them. */
export const queryMetadata = ({ metadata }: Record<string, unknown>): string | undefined =>
  compactMetadata(metadata === undefined ? undefined : String(metadata));

/** Query parameters that may stand for options. */
export const batchQuery = ["version", "priority", "cache", "max_failed_rows", "metadata", "webhook"] as const;

/** Reads options from the query, where the body is nothing but inputs. Throws `bad_query`. */
export function readBatchQuery(query: Record<string, unknown>): BatchOptions {
  const { cache, max_failed_rows: mostFailed, metadata, priority, version, webhook } = query;
  const options = {
    ...(version !== undefined && { version }),
    ...(priority !== undefined && { priority: /^\d{1,4}$/.test(String(priority)) ? Number(priority) : priority }),
    ...(cache !== undefined && { cache: cache === "true" ? true : cache === "false" ? false : cache }),
    ...(mostFailed !== undefined && {
      max_failed_rows: /^(\d{1,10}|0?\.\d{1,10})$/.test(String(mostFailed)) ? Number(mostFailed) : mostFailed,
    }),
    ...(metadata !== undefined && { metadata: parsedMetadata(String(metadata)) }),
    ...(webhook !== undefined && { webhook: { url: webhook } }),
  };
  const parsed = batchOptionsSchema.safeParse(options);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ServiceError("bad_query", `${String(issue?.path[0])}: ${issue?.message}`);
}

function parsedMetadata(text: string): unknown {
  try {
    return parseCheckedJson(Buffer.from(text), { maxBodyKeys: mostMetadataKeys });
  } catch {
    throw new ServiceError("bad_query", "metadata must be a JSON object without duplicate keys.");
  }
}
