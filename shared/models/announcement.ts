import { z } from "zod";
import { dtypes } from "../tensors/dtype.js";
import { lenient } from "./lenient.js";
import { manifestSchema } from "./manifest.js";

/** A tensor as the ONNX file declares it; a dimension is a number, or the symbol (possibly "") of a dynamic one. */
export const tensorSpecSchema = z.object({
  name: z.string(),
  dtype: z.enum(dtypes),
  shape: z.array(z.union([z.int(), z.string()])),
});

/**
 * Whether requests share a run: `proven` by the graph, `declared` by the author and held against runs alone at load, or
 * `off`, each with the reason in words.
 */
export const joiningSchema = z.object({
  mode: z.enum(["proven", "declared", "off"]),
  reason: z.string(),
});

/** A worker's announcement of a version, kept in Redis for good; APIs know nothing else of a model. */
export const announcementSchema = z.object({
  v: z.literal(1),
  model: z.string(),
  version: z.string(),
  /** `sha256:` and the digest of the version's files; see `shared/models/model-digest.ts`. */
  digest: z.string(),
  /** Unknown fields, of a newer release, are ignored. */
  manifest: lenient(manifestSchema),
  inputs: z.array(tensorSpecSchema),
  outputs: z.array(tensorSpecSchema),
  /** Whether requests are joined along the first dimension. */
  joinable: z.boolean(),
  /** The mode of joining with its reason; absent in older releases. */
  joining: joiningSchema.optional(),
  /** The graph draws random numbers, so answers are neither cached nor shared. */
  drawsNumbers: z.boolean().optional(),
  /** Fingerprint of files and manifest, as in `unjoined` of `keys.ts`. */
  fingerprint: z.string().optional(),
});

export type Joining = z.infer<typeof joiningSchema>;
export type TensorSpec = z.infer<typeof tensorSpecSchema>;
export type Announcement = z.infer<typeof announcementSchema>;
