import { z } from "zod";

/** The form of a later answer by the Open Inference Protocol. */
export const responseFormSchema = z.object({
  /** The caller's own id of the request, echoed. */
  i: z.string().optional(),
  /** Requested outputs by name, 1 for binary data; all outputs where it is absent. */
  o: z.array(z.tuple([z.string(), z.union([z.literal(0), z.literal(1)])])).optional(),
  /** Set where outputs are binary data unless `o` says otherwise. */
  b: z.literal(1).optional(),
});

export type ResponseForm = z.infer<typeof responseFormSchema>;
