import { z } from "zod";
import { batchResultPageSchema, batchSchema } from "../batches/batch-schema.js";
import {
  eventAnswers,
  idempotencyParameter,
  lastEventParameter,
  type Operations,
  query,
  waitParameter,
  whole,
} from "../http/operation.js";

/** The operations of `routes/one-batch.ts`. */
export const oneBatchOperations: Operations = {
  "/v1/batches/{id}": {
    get: {
      summary: "Read a batch",
      scope: "read",
      parameters: [waitParameter],
      answers: { 200: ["Current state", batchSchema] },
    },
  },
  "/v1/batches/{id}/events": {
    get: {
      summary: "Follow a batch by server-sent events",
      scope: "read",
      parameters: [lastEventParameter],
      answers: eventAnswers,
    },
  },
  "/v1/batches/{id}/results": {
    get: {
      summary: "Read the results in input order, while it runs too",
      scope: "read",
      parameters: [
        query("from", whole(0), "The first index"),
        query("limit", whole(1, 10_000), "Entries of a JSON page"),
        query("cursor", z.string(), "`next_cursor` of the page before"),
      ],
      answers: {
        200: [
          "A line for each input",
          { "application/x-ndjson": z.string(), "text/csv": z.string(), "application/json": batchResultPageSchema },
        ],
      },
    },
  },
  "/v1/batches/{id}/cancel": {
    post: { summary: "Cancel a batch", scope: "predict", answers: { 200: ["Canceled", batchSchema] } },
  },
  "/v1/batches/{id}/retry": {
    post: {
      summary: "Run the rows that failed again",
      scope: "predict",
      parameters: [idempotencyParameter],
      answers: { 202: ["A new batch", batchSchema] },
    },
  },
};
