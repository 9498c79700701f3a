import { predictionStatuses } from "@millrace/shared/predictions/prediction.js";
import { header, idempotencyParameter, listParameters, type Operations } from "../http/operation.js";
import { predictionPageSchema, predictionSchema } from "../predictions/prediction-schema.js";
import { submissionSchema } from "../predictions/submission.js";

/** The operations of `routes/predictions.ts`. */
export const predictionsOperations: Operations = {
  "/v1/models/{model}/predictions": {
    post: {
      summary: "Submit a prediction",
      scope: "predict",
      parameters: [
        idempotencyParameter,
        header("Prefer", "`wait=N`: answer with the end if it comes within N ≤ 60 seconds"),
      ],
      body: submissionSchema,
      answers: {
        200: ["It is final: within `Prefer: wait`, or from the cache", predictionSchema],
        202: ["Accepted; `Location` leads to it", predictionSchema],
      },
    },
  },
  "/v1/predictions": {
    get: {
      summary: "List your predictions, newest first",
      scope: "read",
      parameters: listParameters(predictionStatuses),
      answers: { 200: ["A page", predictionPageSchema] },
    },
  },
};
