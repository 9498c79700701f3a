import { redrivePlanSchema, redriveStatuses } from "@millrace/shared/predictions/redrive.js";
import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import { z } from "zod";
import { listOf, timeSchema } from "../http/operation.js";

/** Failures of one model with one code. */
export const failureGroupSchema = z
  .object({
    object: z.literal("failure_group"),
    model: z.string(),
    code: z.enum(failureCodes),
    count: z.int().min(1),
    first_failed_at: timeSchema,
    last_failed_at: timeSchema,
    examples: z.array(z.string()).meta({ description: "Ids of the newest, newest first" }),
  })
  .meta({ id: "FailureGroup" });

/** All groups of failures. */
export const failureListSchema = listOf(failureGroupSchema, "FailureList");

const countSchema = z.int().min(0);

/** A redrive as it is told. */
export const redriveSchema = z
  .object({
    id: z.string(),
    object: z.literal("redrive"),
    status: z.enum(redriveStatuses),
    filter: redrivePlanSchema.shape.filter,
    rate: z.number(),
    counts: z.object({
      total: countSchema,
      redriven: countSchema,
      skipped: countSchema,
      canceled: countSchema,
      pending: countSchema,
    }),
    created_at: timeSchema,
    started_at: timeSchema.nullable(),
    finished_at: timeSchema.nullable(),
    urls: z.object({ self: z.string(), cancel: z.string() }),
  })
  .meta({ id: "Redrive" });

/** All redrives. */
export const redriveListSchema = listOf(redriveSchema, "RedriveList");
