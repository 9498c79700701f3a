import { z } from "zod";
import { failureCodes } from "../service/failure-codes.js";

/** The states of a redrive. It moves only forward. */
export const redriveStatuses = ["queued", "running", "succeeded", "canceled"] as const;

export type RedriveStatus = (typeof redriveStatuses)[number];

/** The name of every redrive's job, as Bull Board shows it. */
export const redriveJobName = "redrive";

/** Redrives of an owner that a list shows, the newest. */
export const listedRedrives = 100;

/** What a redrive is to do, which is fixed when it is made; it outlives deployments. Times are ms since the epoch. */
export const redrivePlanSchema = z.object({
  v: z.literal(1),
  /** As the caller wrote it. */
  filter: z.object({
    model: z.string().nullable(),
    code: z.enum(failureCodes).nullable(),
    failed_after: z.string().nullable(),
    failed_before: z.string().nullable(),
  }),
  /** Failures between these times, both included. */
  from: z.number(),
  to: z.number(),
  /** Models and codes that had such failures, in the order in which they are gone through. */
  lots: z.array(z.object({ model: z.string(), code: z.enum(failureCodes) })),
  total: z.int(),
  /** At most so many a second. */
  rate: z.number(),
  /** What new predictions are accepted by. */
  accept: z.object({
    limits: z.object({ jobs: z.number(), rows: z.number(), bytes: z.number(), ownerPart: z.number() }),
    weight: z.number(),
    resultTtlMs: z.number(),
  }),
  /** Request id, for the logs. */
  requestId: z.string(),
});

export type RedrivePlan = z.infer<typeof redrivePlanSchema>;

/** The failure that was looked at last, and in which lot it is. */
export const redrivePlaceSchema = z.object({ lot: z.int(), failedAt: z.number(), id: z.string() });

export type RedrivePlace = z.infer<typeof redrivePlaceSchema>;

/** A redrive as it is kept; times in ms since the epoch. */
export interface Redrive {
  id: string;
  owner: string;
  plan: RedrivePlan;
  createdAt: number;
  startedAt: number | null;
  endedAt: number | null;
  end: "succeeded" | "canceled" | null;
  /** Looked at and left, so far: tried again by others, or without an input or a version. */
  skipped: number;
  place: RedrivePlace | null;
  /** Until when what its rate allows has been used. */
  pacedUntil: number | null;
}

const time = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

/** The redrive as its JSON text; `redriven` over all of its models. */
export function redriveJson(redrive: Redrive, redriven: number): string {
  const { end, plan } = redrive;
  // Whatever was found to be a failure and is none any more was skipped, although nobody has looked at it.
  const total = Math.max(plan.total, redriven);
  const skipped = end === "succeeded" ? total - redriven : Math.min(redrive.skipped, total - redriven);
  const left = total - redriven - skipped;
  const status: RedriveStatus = end ?? (redrive.startedAt === null ? "queued" : "running");
  const path = `/v1/failures/redrives/${redrive.id}`;
  return JSON.stringify({
    id: redrive.id,
    object: "redrive",
    status,
    filter: plan.filter,
    rate: plan.rate,
    counts: {
      total,
      redriven,
      skipped,
      canceled: end === "canceled" ? left : 0,
      pending: end === "canceled" ? 0 : left,
    },
    created_at: time(redrive.createdAt),
    started_at: time(redrive.startedAt),
    finished_at: time(redrive.endedAt),
    urls: { self: path, cancel: `${path}/cancel` },
  });
}
