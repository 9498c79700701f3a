import { z } from "zod";
import {
  eventAnswers,
  idempotencyParameter,
  lastEventParameter,
  type Operations,
  waitParameter,
} from "../http/operation.js";
import { predictionSchema } from "../predictions/prediction-schema.js";
import { inferAnswerSchema } from "../tensors/protocol-schema.js";
import { inferenceType } from "../tensors/send-answer.js";

/** The operations of `routes/one-prediction.ts`. */
export const onePredictionOperations: Operations = {
  "/v1/predictions/{id}": {
    get: {
      summary: "Read a prediction",
      scope: "read",
      parameters: [waitParameter],
      answers: {
        200: [
          "Current state; or the final one in the form of the Open Inference Protocol",
          {
            "application/json": predictionSchema,
            [inferenceType]: inferAnswerSchema,
            "application/octet-stream": z.string().meta({ format: "binary" }),
          },
        ],
        202: ["Not final yet, where the form of the Open Inference Protocol was asked for", predictionSchema],
      },
    },
  },
  "/v1/predictions/{id}/events": {
    get: {
      summary: "Follow a prediction by server-sent events",
      scope: "read",
      parameters: [lastEventParameter],
      answers: eventAnswers,
    },
  },
  "/v1/predictions/{id}/cancel": {
    post: { summary: "Cancel a prediction", scope: "predict", answers: { 200: ["Canceled", predictionSchema] } },
  },
  "/v1/predictions/{id}/retry": {
    post: {
      summary: "Try a failed, canceled or expired prediction again",
      scope: "predict",
      parameters: [idempotencyParameter],
      answers: { 202: ["A new prediction", predictionSchema] },
    },
  },
};
