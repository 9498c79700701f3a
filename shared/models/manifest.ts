import { z } from "zod";
import { driftBaselineSchema } from "./drift.js";
import { imageInputSchema, tabularInputSchema, textInputSchema } from "./manifest-input.js";
import { outputSchema, rawHead, tabularOutputSchema } from "./manifest-output.js";

const modelName = /^[a-z0-9][a-z0-9._-]{0,63}$/;

const sample = z.strictObject({
  name: z.string().optional().describe("What this sample shows, for people"),
  input: z.unknown().describe("An input as a client would send it"),
  expected: z
    .record(z.string(), z.unknown())
    .optional()
    .describe("Output that the model must reproduce within 1e-4 before it takes work"),
});

const common = {
  $schema: z.string().optional(),
  title: z.string().max(200).optional().describe("For people"),
  description: z.string().max(4000).optional().describe("For people: what it tells, and what it cannot"),
  batching: z
    .strictObject({
      join: z
        .enum(["auto", "always", "never"])
        .default("auto")
        .describe(
          "Whether requests share a run. auto: where the ONNX graph shows that no row can see another; always: the " +
            "author says so, and it is held against runs alone at load; never: each request runs alone",
        ),
      max_batch_rows: z.int().min(1).max(65_536).default(64).describe("Rows of one run at the most; 1: never join"),
      max_delay_ms: z.int().min(0).max(60_000).default(0).describe("How long an idle slot waits for company"),
      bulk_rows: z
        .int()
        .min(1)
        .max(65_536)
        .default(2048)
        .describe("Rows of a batch that are handed to a worker as one, tabular models"),
    })
    .prefault({}),
  session: z
    .strictObject({
      load_timeout_ms: z
        .int()
        .min(1)
        .max(3_600_000)
        .default(120_000)
        .describe("Loading and warming up may take this long, samples included; a version beyond it is refused"),
    })
    .prefault({}),
  timeout_ms: z.int().min(1).max(3_600_000).default(30_000).describe("One run may take this long"),
  attempts: z.int().min(1).max(100).default(3).describe("Attempts in all; only timeouts and crashes are repeated"),
  backoff_ms: z.int().min(0).max(3_600_000).default(1000).describe("Before the second attempt; doubles, with jitter"),
  cache_ttl_seconds: z
    .int()
    .min(0)
    .max(86_400)
    .optional()
    .describe(
      "How long an answer is given again; 0: never. Where it is not written down: 300, and 0 for a graph that draws " +
        "random numbers, whose requests are not deduplicated either",
    ),
  metrics: z.record(z.string(), z.number()).optional().describe("What training measured, such as accuracy"),
  drift_baseline: driftBaselineSchema.optional(),
  samples: z.array(sample).max(100).default([]),
};

/**
 * `model.json`: the facts about a model that its ONNX file does not hold. Durations in ms unless the name says seconds.
 */
export const manifestSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    ...common,
    kind: z.literal("tabular").describe("An array in feature order or an object by feature name"),
    input: tabularInputSchema,
    output: tabularOutputSchema.default({ head: "raw" }),
  }),
  z.strictObject({
    ...common,
    kind: z.literal("text").describe("A string"),
    input: textInputSchema,
    output: outputSchema.default({ head: "raw" }),
  }),
  z.strictObject({
    ...common,
    kind: z.literal("image").describe("JPEG, PNG or WebP, in base64, as a data URL or as a file"),
    input: imageInputSchema,
    output: outputSchema.default({ head: "raw" }),
  }),
  z.strictObject({
    ...common,
    kind: z.literal("tensor").describe("An object of nested arrays by tensor name"),
    output: rawHead.default({ head: "raw" }),
  }),
]);

export type Manifest = z.infer<typeof manifestSchema>;
export type TabularManifest = Extract<Manifest, { kind: "tabular" }>;

/** The manifest of a folder without one: the tensors of the ONNX file. */
export const defaultManifest = (): Manifest => manifestSchema.parse({ kind: "tensor" });

/** Default lifetime of cached answers, in seconds. */
const usualCacheTtlSeconds = 300;

/**
 * Lifetime of a version's cached answers, in seconds; 0: not cached. `drawsNumbers`: its graph draws random numbers.
 */
export const cacheTtlSeconds = ({ cache_ttl_seconds: said }: Manifest, drawsNumbers: boolean): number =>
  said ?? (drawsNumbers ? 0 : usualCacheTtlSeconds);

/** Whether a text is a model name: 1 to 64 lower-case letters, digits, `.`, `_`, `-`. */
export const isModelName = (name: string): boolean => modelName.test(name);

/** JSON Schema (draft 2020-12) of `model.json`, from the schema that checks it. */
export const manifestJsonSchema = (): object => z.toJSONSchema(manifestSchema, { io: "input" });
