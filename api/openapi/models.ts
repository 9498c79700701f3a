import type { Operations } from "../http/operation.js";
import { modelListSchema, modelSchema, orderOutcomeSchema, trafficAnswerSchema } from "../models/model-schema.js";
import { loadBody, rollbackBody, trafficBody, unloadBody } from "../routes/model-changes.js";

/** The operations of `routes/models.ts`. */
export const modelOperations: Operations = {
  "/v1/models": {
    get: {
      summary: "See what is served",
      scope: ["read", "operate"],
      answers: { 200: ["All models", modelListSchema] },
    },
  },
  "/v1/models/{model}": {
    get: {
      summary: "See a model: versions, input, workers, queue, a sample",
      scope: ["read", "operate"],
      answers: { 200: ["The model", modelSchema] },
    },
  },
};

/** The operations of `routes/model-changes.ts`. */
export const modelChangeOperations: Operations = {
  "/v1/models/{model}/traffic": {
    put: {
      summary: "Split the traffic between versions",
      scope: "operate",
      body: trafficBody,
      answers: { 200: ["The split", trafficAnswerSchema] },
    },
  },
  "/v1/models/{model}/rollback": {
    post: {
      summary: "Take back the last change of the traffic",
      scope: "operate",
      body: rollbackBody,
      bodyOptional: true,
      answers: { 200: ["The split", trafficAnswerSchema] },
    },
  },
  "/v1/models/{model}/load": {
    post: {
      summary: "Have workers look at their models folders now",
      scope: "operate",
      body: loadBody,
      bodyOptional: true,
      answers: {
        200: ["A worker serves it", orderOutcomeSchema],
        202: ["Not every worker has answered yet", orderOutcomeSchema],
      },
    },
  },
  "/v1/models/{model}/unload": {
    post: {
      summary: "Take a version away from all workers",
      scope: "operate",
      body: unloadBody,
      answers: {
        200: ["All workers have answered", orderOutcomeSchema],
        202: ["Not every worker has answered yet", orderOutcomeSchema],
      },
    },
  },
};
