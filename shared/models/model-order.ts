import { z } from "zod";

/** An admin's order to every worker to rescan its models folder, as published on `ordersChannel`. */
export const orderSchema = z.object({ id: z.string(), model: z.string() });

/** A worker's report of one version. */
export const versionStateSchema = z.object({
  version: z.string().nullable(),
  state: z.enum(["ready", "draining", "refused"]),
  digest: z.string().nullable(),
  reason: z.string().nullable(),
});

/** A worker's answer to an order, in the hash `orderKey`. */
export const orderAnswerSchema = z.array(versionStateSchema);

/** A version that a worker failed to load, in `keys.refusals` while the worker lives. */
export const refusalSchema = z.object({ worker: z.string(), version: z.string().nullable(), reason: z.string() });

export type ModelOrder = z.infer<typeof orderSchema>;
export type VersionReport = z.infer<typeof versionStateSchema>;
export type ModelRefusal = z.infer<typeof refusalSchema>;

/** Lifetime of the answers to an order. */
export const orderKeptSeconds = 300;
