import { z } from "zod";
import type { Operation, Operations } from "../http/operation.js";
import { predictionSchema } from "../predictions/prediction-schema.js";
import { inferAnswerSchema, inferRequestSchema } from "../tensors/protocol-schema.js";

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
