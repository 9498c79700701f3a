import { z } from "zod";
import { driftBaselineSchema } from "./drift.js";

const modelName = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const number = z.number();

const feature = z.union([
  z.string().min(1),
  z.strictObject({
    name: z.string().min(1),
    description: z.string().optional(),
    min: number.optional(),
    max: number.optional(),
  }),
]);

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
  title: z.string().max(200).optional(),
  description: z.string().max(4000).optional(),
  batching: z
    .strictObject({
      max_batch_rows: z.int().min(1).max(65_536).default(64).describe("Rows of one run at the most; 1: never join"),
      max_delay_ms: z.int().min(0).max(60_000).default(0).describe("How long an idle slot waits for company"),
      bulk_rows: z
        .int()
        .min(1)
        .max(65_536)
        .default(1024)
        .describe("Rows of a batch that run as one tensor, tabular models"),
    })
    .prefault({}),
  timeout_ms: z.int().min(1).max(3_600_000).default(30_000).describe("One run may take this long"),
  attempts: z.int().min(1).max(100).default(3),
  backoff_ms: z.int().min(0).max(3_600_000).default(1000).describe("Before the second attempt; doubles, with jitter"),
  cache_ttl_seconds: z.int().min(0).max(86_400).default(300),
  metrics: z.record(z.string(), number).optional().describe("What training measured, such as accuracy"),
  drift_baseline: driftBaselineSchema.optional(),
  samples: z.array(sample).max(100).default([]),
};

const classifierHead = z.strictObject({
  head: z.literal("classifier"),
  probabilities: z.string().describe("Output tensor of shape [rows, classes], float"),
  labels: z.array(z.string().min(1)).min(2).max(100_000),
});
const regressorHead = z.strictObject({
  head: z.literal("regressor"),
  value: z.string().describe("Output tensor of shape [rows] or [rows, 1]"),
});
const rawHead = z.strictObject({ head: z.literal("raw") });

/** `model.json`, which says of a model what its ONNX file cannot. Durations in ms unless the name says seconds. */
export const manifestSchema = z.discriminatedUnion("kind", [
  z.strictObject({
    ...common,
    kind: z.literal("tabular"),
    input: z.strictObject({
      tensor: z.string().describe("Input tensor of shape [rows, features], float32"),
      features: z.array(feature).min(1).max(100_000),
    }),
    output: z.discriminatedUnion("head", [classifierHead, regressorHead, rawHead]).default({ head: "raw" }),
  }),
  z.strictObject({
    ...common,
    kind: z.literal("tensor"),
    output: rawHead.default({ head: "raw" }),
  }),
]);

export type Manifest = z.infer<typeof manifestSchema>;
export type TabularManifest = Extract<Manifest, { kind: "tabular" }>;

/** The manifest of a folder that has none: the tensor API's view of the ONNX file. */
export const defaultManifest = (): Manifest => manifestSchema.parse({ kind: "tensor" });

/** Whether a folder of the repository can be a model: lower-case letters, digits, `.`, `_`, `-`; at most 64. */
export const isModelName = (name: string): boolean => modelName.test(name);

/** JSON Schema (draft 2020-12) of `model.json`, made from the same source that checks it. */
export const manifestJsonSchema = (): object => z.toJSONSchema(manifestSchema, { io: "input" });
