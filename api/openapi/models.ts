import type { Operations } from "../http/operation.js";
import { modelListSchema, modelSchema } from "../models/model-schema.js";

/** The operations of `routes/models.ts`. */
export const modelOperations: Operations = {
  "/v1/models": {
    get: { summary: "See what is served", scope: "read", answers: { 200: ["All models", modelListSchema] } },
  },
  "/v1/models/{model}": {
    get: {
      summary: "See a model: versions, input, workers, queue, a sample",
      scope: "read",
      answers: { 200: ["The model", modelSchema] },
    },
  },
};
