import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import { z } from "zod";

/** Where none is asked for. */
export const usualRate = 10;

const time = () => z.iso.datetime({ offset: true, error: "must be an RFC 3339 time" });

/** The body of `POST /v1/failures/redrive`: which failures, and how many of them a second. */
export const redriveRequestSchema = z
  .strictObject({
    model: z.string().max(256).optional(),
    code: z.enum(failureCodes).optional(),
    failed_after: time().optional(),
    failed_before: time().optional(),
    rate: z.number().min(0.01).max(1000).optional(),
  })
  .superRefine(({ failed_after: after, failed_before: before }, context) => {
    if (after !== undefined && before !== undefined && Date.parse(after) >= Date.parse(before)) {
      context.addIssue({ code: "custom", path: ["failed_before"], message: "must be later than failed_after" });
    }
  });

export type RedriveRequest = z.infer<typeof redriveRequestSchema>;
