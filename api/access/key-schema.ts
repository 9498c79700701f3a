import { z } from "zod";
import { timeSchema } from "../http/operation.js";

/** A key in Redis, which is never told itself. */
export const keySchema = z
  .object({
    id: z.string(),
    object: z.literal("key"),
    owner: z.string(),
    scopes: z.array(z.string()),
    created_at: timeSchema,
    expires_at: timeSchema.nullable(),
    last_used_at: timeSchema.nullable(),
  })
  .meta({ id: "Key" });
/** A key, by the answer that makes it. */
export const madeKeySchema = keySchema
  .extend({ key: z.string().meta({ description: "Shown this once" }) })
  .meta({ id: "MadeKey" });
/** A key that has ended. */
export const revokedKeySchema = z
  .object({ id: z.string(), object: z.literal("key"), revoked: z.literal(true) })
  .meta({ id: "RevokedKey" });
