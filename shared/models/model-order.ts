import { z } from "zod";

/** An admin's wish that every worker looks at its models folder now, as it travels on `ordersChannel`. */
export const orderSchema = z.object({ id: z.string(), model: z.string() });

/** What a worker has to say of the versions of a model. */
export const versionStateSchema = z.object({
  version: z.string().nullable(),
  state: z.enum(["ready", "draining", "refused"]),
  digest: z.string().nullable(),
  reason: z.string().nullable(),
});

/** What a worker answers to an order, in the hash `orderKey`. */
export const orderAnswerSchema = z.array(versionStateSchema);

/** What a worker could not load, as it stands in `keys.refusals` while the worker lives. */
export const refusalSchema = z.object({ worker: z.string(), version: z.string().nullable(), reason: z.string() });

export type ModelOrder = z.infer<typeof orderSchema>;
export type VersionReport = z.infer<typeof versionStateSchema>;
export type ModelRefusal = z.infer<typeof refusalSchema>;

/** How long answers to an order are kept. */
export const orderKeptSeconds = 300;
