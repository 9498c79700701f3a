import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import { z } from "zod";
import { idempotencyParameter, type Operations, query } from "../http/operation.js";
import { redriveRequestSchema } from "../predictions/make-redrive.js";
import { failureListSchema, redriveSchema } from "../predictions/redrive-schema.js";

/** The operations of `routes/failures.ts`. */
export const failureOperations: Operations = {
  "/v1/failures": {
    get: {
      summary: "See your failed predictions that nobody has tried again, by model and code",
      scope: "read",
      parameters: [
        query("model", z.string(), "Only of this model"),
        query("code", z.enum(failureCodes), "Only with this code"),
      ],
      answers: { 200: ["The groups, newest first", failureListSchema] },
    },
  },
  "/v1/failures/redrive": {
    post: {
      summary: "Try failed predictions again, each once, so many a second",
      scope: "predict",
      parameters: [idempotencyParameter],
      body: redriveRequestSchema,
      answers: { 202: ["Accepted; `Location` leads to it", redriveSchema] },
    },
  },
};
