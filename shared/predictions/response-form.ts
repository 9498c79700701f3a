import { z } from "zod";

/** What an answer in the form of the Open Inference Protocol is to be like, where it is not fetched at once. */
export const responseFormSchema = z.object({
  /** The caller's own id of the request, echoed. */
  i: z.string().optional(),
  /** Outputs by name, 1 for those wanted as binary data; all of them where there are none. */
  o: z.array(z.tuple([z.string(), z.union([z.literal(0), z.literal(1)])])).optional(),
  /** Set where outputs are binary data unless `o` says otherwise. */
  b: z.literal(1).optional(),
});

export type ResponseForm = z.infer<typeof responseFormSchema>;
