import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import { z } from "zod";
import { idempotencyParameter, type Operations, query, waitParameter } from "../http/operation.js";
import { redriveRequestSchema } from "../predictions/make-redrive.js";
import { failureListSchema, redriveListSchema, redriveSchema } from "../predictions/redrive-schema.js";

const madeSchema = z.union([redriveSchema, redriveListSchema]).meta({ id: "MadeRedrives" });
const ownersParameter = query(
  "owner",
  z.string(),
  "Of that owner instead of your own; with the scope `operate` or `inspect`",
);

/** The operations of `routes/failures.ts`. */
export const failureOperations: Operations = {
  "/v1/failures": {
    get: {
      summary: "See your failed predictions that nobody has tried again, by model and code",
      scope: ["read", "operate"],
      parameters: [
        ownersParameter,
        query("model", z.string(), "Only of this model"),
        query("code", z.enum(failureCodes), "Only with this code"),
      ],
      answers: { 200: ["The groups, newest first", failureListSchema] },
    },
  },
  "/v1/failures/redrive": {
    post: {
      summary: "Try failed predictions again, once each, at `rate` per second",
      scope: ["predict", "operate"],
      parameters: [idempotencyParameter],
      body: redriveRequestSchema,
      answers: {
        202: ["Accepted; `Location` leads to it. Of all owners: one for each", madeSchema],
      },
    },
  },
};

/** The operations of `routes/redrives.ts`. */
export const redriveOperations: Operations = {
  "/v1/failures/redrives": {
    get: {
      summary: "List your redrives, the newest hundred, newest first",
      scope: ["read", "operate"],
      parameters: [ownersParameter],
      answers: { 200: ["The redrives", redriveListSchema] },
    },
  },
  "/v1/failures/redrives/{id}": {
    get: {
      summary: "Read a redrive",
      scope: ["read", "operate"],
      parameters: [waitParameter],
      answers: { 200: ["Current state", redriveSchema] },
    },
  },
  "/v1/failures/redrives/{id}/cancel": {
    post: { summary: "Stop a redrive", scope: ["predict", "operate"], answers: { 200: ["Canceled", redriveSchema] } },
  },
};
