import { z } from "zod";
import { failureCodes } from "../service/failure-codes.js";

/** The statuses of a redrive. It moves only forward. */
export const redriveStatuses = ["queued", "running", "succeeded", "canceled"] as const;

export type RedriveStatus = (typeof redriveStatuses)[number];

/** The name of every redrive's job, as Bull Board shows it. */
export const redriveJobName = "redrive";

/** Most redrives of an owner in a list; the newest. */
export const listedRedrives = 100;

/** The plan of a redrive, constant from its beginning; it outlives deployments. Times in ms since the epoch. */
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
  /** Models and codes with such failures, in the order of the redrive. */
  lots: z.array(z.object({ model: z.string(), code: z.enum(failureCodes) })),
  total: z.int(),
  /** Most failures accepted anew a second. */
  rate: z.number(),
  /** The settings by which new predictions are accepted. */
  accept: z.object({
    limits: z.object({
      jobs: z.number(),
      rows: z.number(),
      bytes: z.number(),
      ownerPart: z.number(),
      // Plans of earlier releases have none.
      followers: z.number().default(1000),
    }),
    weight: z.number(),
    /** Part of the memory of Redis from which on nothing is accepted; plans of earlier releases have none. */
    memoryPart: z.number().default(1),
    /** The bucket of the rows of the key, and the rows that it holds; null: no limit. */
    rows: z.object({ key: z.string(), limit: z.number() }).nullable().default(null),
    resultTtlMs: z.number(),
  }),
  /** Request id, for the logs. */
  requestId: z.string(),
});

export type RedrivePlan = z.infer<typeof redrivePlanSchema>;

/** The failure that was handled last, and the index of its model and code. */
export const redrivePlaceSchema = z.object({ lot: z.int(), failedAt: z.number(), id: z.string() });

export type RedrivePlace = z.infer<typeof redrivePlaceSchema>;

/** A stored redrive; times in ms since the epoch. */
export interface Redrive {
  id: string;
  owner: string;
  plan: RedrivePlan;
  createdAt: number;
  startedAt: number | null;
  endedAt: number | null;
  end: "succeeded" | "canceled" | null;
  /** Failures skipped so far: retried by others, or without an input or a version. */
  skipped: number;
  place: RedrivePlace | null;
  /** End of the time whose part of the rate is used. */
  pacedUntil: number | null;
}

const time = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

/** The redrive as its JSON text; `redriven` over all of its models. */
export function redriveJson(redrive: Redrive, redriven: number): string {
  const { end, plan } = redrive;
  // Entries that were failures at first and are none any more count as skipped.
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
