import { ServiceError } from "@millrace/shared/errors.js";
import { pointerSegment } from "@millrace/shared/packer.js";
import { z } from "zod";
import { parseCheckedJson } from "../check-json.js";
import { metadataSchema } from "../submission.js";

/** 4 KiB hold no more. */
const mostMetadataKeys = 1000;

/** What may be said of a batch beside its inputs. */
const optionsSchema = z.strictObject({
  version: z.string().max(16).optional(),
  priority: z.int().min(0).max(1000).default(0),
  cache: z.boolean().default(true),
  metadata: metadataSchema.optional(),
  webhook: z
    .strictObject({
      url: z.string(),
      events: z.array(z.literal("batch.completed")).min(1).default(["batch.completed"]),
    })
    .optional(),
});

export type BatchOptions = z.infer<typeof optionsSchema>;

/** Reads options that stood beside the inputs of a JSON body. Throws `invalid_request` with everything that is wrong. */
export function parseBatchOptions(options: Record<string, unknown>): BatchOptions {
  const parsed = optionsSchema.safeParse(options);
  if (parsed.success) return parsed.data;
  const complaints = parsed.error.issues.flatMap((issue) => {
    const pointer = issue.path.map((segment) => pointerSegment(String(segment))).join("");
    if (issue.code !== "unrecognized_keys") return [{ detail: issue.message, pointer }];
    return issue.keys.map((key) => ({ detail: `unknown field "${key}"`, pointer: pointer + pointerSegment(key) }));
  });
  const [first] = complaints;
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  throw new ServiceError("invalid_request", `${first?.pointer || "body"}: ${first?.detail}${more}`, { complaints });
}

/** Query parameters that may stand for options. */
export const batchQuery = ["version", "priority", "cache", "metadata", "webhook"] as const;

/** Reads options from the query, where the body is nothing but inputs. Throws `bad_query`. */
export function readBatchQuery(query: Record<string, unknown>): BatchOptions {
  const { cache, metadata, priority, version, webhook } = query;
  const options = {
    ...(version !== undefined && { version }),
    ...(priority !== undefined && { priority: /^\d{1,4}$/.test(String(priority)) ? Number(priority) : priority }),
    ...(cache !== undefined && { cache: cache === "true" ? true : cache === "false" ? false : cache }),
    ...(metadata !== undefined && { metadata: parsedMetadata(String(metadata)) }),
    ...(webhook !== undefined && { webhook: { url: webhook } }),
  };
  const parsed = optionsSchema.safeParse(options);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ServiceError("bad_query", `${String(issue?.path[0])}: ${issue?.message}`);
}

function parsedMetadata(text: string): unknown {
  try {
    return parseCheckedJson(Buffer.from(text), { maxBodyKeys: mostMetadataKeys });
  } catch {
    throw new ServiceError("bad_query", "metadata must be a JSON object, no key of which is there twice");
  }
}
