import { z } from "zod";

const tensorSchema = z.object({ name: z.string(), datatype: z.string(), shape: z.array(z.int()) });
const parametersSchema = z.record(z.string(), z.unknown()).optional();

/** A request of the Open Inference Protocol, as far as clients need to know it; what else they send is passed over. */
export const inferRequestSchema = z
  .looseObject({
    id: z.string().optional(),
    parameters: parametersSchema,
    inputs: z.array(tensorSchema.extend({ parameters: parametersSchema, data: z.unknown().optional() })),
    outputs: z.array(z.object({ name: z.string(), parameters: parametersSchema })).optional(),
  })
  .meta({ id: "InferRequest" });

/** The JSON of an answer; binary data follows it where a size is told. */
export const inferAnswerSchema = z
  .object({
    id: z.string().optional(),
    model_name: z.string(),
    model_version: z.string(),
    outputs: z.array(
      tensorSchema.extend({
        parameters: z.object({ binary_data_size: z.int() }).optional(),
        data: z.array(z.unknown()).optional(),
      }),
    ),
  })
  .meta({ id: "InferAnswer" });

/** The server and its extensions. */
export const serverMetadataSchema = z
  .object({ name: z.string(), version: z.string(), extensions: z.array(z.string()) })
  .meta({ id: "ServerMetadata" });

/** The tensors of a model. */
export const modelMetadataSchema = z
  .object({
    name: z.string(),
    versions: z.array(z.string()),
    platform: z.string(),
    inputs: z.array(tensorSchema),
    outputs: z.array(tensorSchema),
  })
  .meta({ id: "ModelMetadata" });

/** Whether the server lives. */
export const liveSchema = z.object({ live: z.boolean() }).meta({ id: "ServerLive" });
/** Whether it takes requests. */
export const readySchema = z.object({ ready: z.boolean() }).meta({ id: "ServerReady" });
/** Whether it takes requests. */
export const modelReadySchema = z.object({ name: z.string(), ready: z.boolean() }).meta({ id: "ModelReady" });

const durationSchema = z.object({ count: z.number(), ns: z.number() });

/** Counts and durations of versions since they were first served. */
export const modelStatisticsSchema = z
  .object({
    model_stats: z.array(
      z.object({
        name: z.string(),
        version: z.string(),
        last_inference: z.number(),
        inference_count: z.number(),
        execution_count: z.number(),
        inference_stats: z.record(z.string(), durationSchema),
        batch_stats: z.array(
          z.object({
            batch_size: z.int(),
            compute_input: durationSchema,
            compute_infer: durationSchema,
            compute_output: durationSchema,
          }),
        ),
      }),
    ),
  })
  .meta({ id: "ModelStatistics" });

const tensorConfigSchema = z.object({
  name: z.string(),
  data_type: z.string(),
  dims: z.array(z.int()),
  reshape: z.object({ shape: z.array(z.int()) }).optional(),
  is_shape_tensor: z.boolean(),
});
const nothing = z.array(z.unknown());

/** Triton's configuration of a model, as far as it says something here. */
export const modelConfigSchema = z
  .object({
    name: z.string(),
    platform: z.string(),
    backend: z.string(),
    version_policy: z.object({ specific: z.object({ versions: z.array(z.int()) }) }),
    max_batch_size: z.int().meta({ description: "Most rows of a run where requests share runs; else 0" }),
    input: z.array(
      tensorConfigSchema.extend({ format: z.string(), allow_ragged_batch: z.boolean(), optional: z.boolean() }),
    ),
    output: z.array(tensorConfigSchema.extend({ label_filename: z.string() })),
    batch_input: nothing,
    batch_output: nothing,
    instance_group: nothing,
    default_model_filename: z.string(),
    cc_model_filenames: z.looseObject({}),
    metric_tags: z.looseObject({}),
    parameters: z.looseObject({}),
    model_warmup: nothing,
    dynamic_batching: z
      .object({ preferred_batch_size: z.array(z.int()), max_queue_delay_microseconds: z.int() })
      .optional(),
  })
  .meta({ id: "ModelConfig" });

/** Nothing can be said of a load: workers load what their folders have, no configuration and no files from here. */
export const loadRequestSchema = z
  .strictObject({ parameters: z.strictObject({}).optional() })
  .meta({ id: "RepositoryLoadRequest" });
/** No model depends on another, so there are no dependents to unload. */
export const unloadRequestSchema = z
  .strictObject({ parameters: z.strictObject({ unload_dependents: z.boolean().optional() }).optional() })
  .meta({ id: "RepositoryUnloadRequest" });

/** Which versions are listed. */
export const indexRequestSchema = z
  .looseObject({ ready: z.boolean().optional().meta({ description: "Only versions that are ready" }) })
  .meta({ id: "RepositoryIndexRequest" });

/** Every known version. */
export const repositoryIndexSchema = z
  .array(
    z.object({
      name: z.string(),
      version: z.string(),
      state: z.enum(["READY", "UNAVAILABLE"]),
      reason: z.string(),
    }),
  )
  .meta({ id: "RepositoryIndex" });
