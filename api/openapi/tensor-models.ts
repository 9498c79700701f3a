import { z } from "zod";
import type { Operation, Operations } from "../http/operation.js";
import { predictionSchema } from "../predictions/prediction-schema.js";
import {
  indexRequestSchema,
  inferAnswerSchema,
  inferRequestSchema,
  liveSchema,
  loadRequestSchema,
  modelConfigSchema,
  modelMetadataSchema,
  modelReadySchema,
  modelStatisticsSchema,
  readySchema,
  repositoryIndexSchema,
  serverMetadataSchema,
  unloadRequestSchema,
} from "../tensors/protocol-schema.js";

const emptySchema = z.object({}).meta({ id: "Empty" });
const modelScopes = ["read", "operate"] as const;
const read = (summary: string, schema: z.ZodType, scope: Operation["scope"] = modelScopes): { get: Operation } => ({
  get: { summary, scope, answers: { 200: [summary, schema] } },
});
const ofModel = (path: string): Operations => ({
  [path]: read("A model's metadata by the Open Inference Protocol", modelMetadataSchema),
  [`${path}/ready`]: {
    get: {
      summary: "Whether a model is ready",
      scope: modelScopes,
      answers: { 200: ["It is", modelReadySchema], 503: ["It is not", modelReadySchema] },
    },
  },
  [`${path}/config`]: read("A model's configuration as Triton tells it", modelConfigSchema),
  [`${path}/stats`]: read("A model's statistics since it was first served", modelStatisticsSchema),
});

/** The operations of `routes/tensor-models.ts` and `routes/repository.ts`. */
export const tensorModelOperations: Operations = {
  "/v2": read("The server's metadata by the Open Inference Protocol", serverMetadataSchema),
  "/v2/health/live": read("Whether the server is alive", liveSchema, null),
  "/v2/health/ready": {
    get: {
      summary: "Whether the server is ready",
      scope: null,
      answers: { 200: ["It is", readySchema], 503: ["It is not", readySchema] },
    },
  },
  "/v2/models/stats": read("The statistics of all models", modelStatisticsSchema),
  ...ofModel("/v2/models/{model}"),
  ...ofModel("/v2/models/{model}/versions/{version}"),
  "/v2/repository/index": {
    post: {
      summary: "The versions that are known, and whether they are ready",
      scope: modelScopes,
      body: indexRequestSchema,
      bodyOptional: true,
      answers: { 200: ["The versions", repositoryIndexSchema] },
    },
  },
  "/v2/repository/models/{model}/load": {
    post: {
      summary: "Have workers load all versions of a model, unloaded ones too",
      scope: "operate",
      body: loadRequestSchema,
      bodyOptional: true,
      answers: { 200: ["A worker serves it", emptySchema] },
    },
  },
  "/v2/repository/models/{model}/unload": {
    post: {
      summary: "Take all versions of a model away from all workers",
      scope: "operate",
      body: unloadRequestSchema,
      bodyOptional: true,
      answers: { 200: ["They finish what they have begun", emptySchema] },
    },
  },
};

const binary = z.string().meta({ format: "binary" });
const inferOperation: Operation = {
  summary: "Infer by the Open Inference Protocol, version 2",
  scope: "predict",
  body: { "application/json": inferRequestSchema, "application/octet-stream": binary },
  answers: {
    200: ["The result itself", { "application/json": inferAnswerSchema, "application/octet-stream": binary }],
    202: ["The prediction, with `Prefer: respond-async`", predictionSchema],
  },
};

/** The operations of `routes/infer.ts`. */
export const inferOperations: Operations = {
  "/v2/models/{model}/infer": { post: inferOperation },
  "/v2/models/{model}/versions/{version}/infer": { post: inferOperation },
};
