import { batchStatuses } from "@millrace/shared/predictions/batch.js";
import { z } from "zod";
import { batchQuery } from "../batches/batch-options.js";
import { batchPageSchema, batchSchema, batchSubmissionSchema } from "../batches/batch-schema.js";
import { idempotencyParameter, listParameters, type Operations, query } from "../http/operation.js";

/** The operations of `routes/batches.ts`. */
export const batchesOperations: Operations = {
  "/v1/models/{model}/batches": {
    post: {
      summary: "Submit a batch in one streamed request",
      scope: "predict",
      parameters: [
        idempotencyParameter,
        ...batchQuery.map((name) => query(name, z.string(), "As in the JSON body, for NDJSON and CSV")),
      ],
      body: {
        "application/json": batchSubmissionSchema,
        "application/x-ndjson": z.string(),
        "text/csv": z.string(),
      },
      answers: { 202: ["Accepted; `Location` leads to it", batchSchema] },
    },
  },
  "/v1/batches": {
    get: {
      summary: "List your batches, newest first",
      scope: "read",
      parameters: listParameters(batchStatuses),
      answers: { 200: ["A page", batchPageSchema] },
    },
  },
};
