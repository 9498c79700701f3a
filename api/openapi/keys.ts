import { keySchema, madeKeySchema, revokedKeySchema } from "../access/key-schema.js";
import { listOf, type Operations } from "../http/operation.js";
import { newKeySchema, rotationSchema } from "../routes/keys.js";

/** The operations of `routes/keys.ts`. */
export const keyOperations: Operations = {
  "/admin/keys": {
    get: {
      summary: "List the keys in Redis",
      scope: ["inspect", "operate"],
      answers: { 200: ["All of them, never the keys themselves", listOf(keySchema, "KeyList")] },
    },
    post: {
      summary: "Make a key",
      scope: "operate",
      body: newKeySchema,
      answers: { 201: ["The key, shown this once", madeKeySchema] },
    },
  },
  "/admin/keys/{key}/rotate": {
    post: {
      summary: "Make a key that may do the same; the old one ends after the overlap",
      scope: "operate",
      body: rotationSchema,
      bodyOptional: true,
      answers: { 201: ["The new key, shown this once", madeKeySchema] },
    },
  },
  "/admin/keys/{key}/revoke": {
    post: { summary: "End a key on all APIs at once", scope: "operate", answers: { 200: ["Ended", revokedKeySchema] } },
  },
};
