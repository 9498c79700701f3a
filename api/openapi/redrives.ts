import { type Operations, waitParameter } from "../http/operation.js";
import { redriveListSchema, redriveSchema } from "../predictions/redrive-schema.js";

/** The operations of `routes/redrives.ts`. */
export const redriveOperations: Operations = {
  "/v1/failures/redrives": {
    get: {
      summary: "List your redrives, the newest hundred, newest first",
      scope: "read",
      answers: { 200: ["The redrives", redriveListSchema] },
    },
  },
  "/v1/failures/redrives/{id}": {
    get: {
      summary: "Read a redrive",
      scope: "read",
      parameters: [waitParameter],
      answers: { 200: ["As it stands", redriveSchema] },
    },
  },
  "/v1/failures/redrives/{id}/cancel": {
    post: { summary: "Stop a redrive", scope: "predict", answers: { 200: ["Canceled", redriveSchema] } },
  },
};
