import { type Redrive, type RedrivePlace, redrivePlaceSchema, redrivePlanSchema } from "../../predictions/redrive.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { modelKeys, noticeChannel, type RedriveKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, number, optional, text } from "../lua/fields.js";
import { type Idempotency, idempotencyHashes } from "../queue/idempotency.js";

/**
 * Rules of redrives:
 * - A redrive and its job are created together. The job runs in slices, each of which schedules the next, so that many
 *   redrives share few workers, and a crash costs the time of one slice.
 * - Changes to failures, and their count, are written in the hash slot of the model (`retry-failures.ts`); the hash
 *   slot of redrives only holds the place reached. Reading a failure twice is harmless.
 * - A redrive ends once.
 */
const makeScript = defineScript({
  name: "millraceMakeRedrive",
  file: "predictions/make-redrive",
  keys: {
    redrive: text("The redrive."),
    open: text("The owner's redrives that have not ended."),
    owned: text("The owner's redrives by creation time."),
    idempotency: text("The owner's idempotency key, with hash of the body and outcome."),
  },
  fields: {
    id: text("The redrive's id."),
    nowMs: number("Time of creation."),
    queue: text("Prefix of the keys of the queue of redrives."),
    resultTtlMs: number("The result time."),
    owner: text("The owner."),
    plan: text("The plan as JSON."),
    openAtMost: number("Limit of open redrives for an owner."),
    jobData: text("The data of its job, as JSON."),
    bodyHashes: optional(text("Hashes of the body, with an idempotency key.")),
  },
  answer: answers<[kind: "made" | "too many" | "replayed" | "mismatch", id: string]>(
    "What became of it, and its id or the id of the one before.",
  ),
});

/**
 * Makes a redrive. `too many`: its owner has `openAtMost` open ones; `replayed`: this key was used before for the same
 * body, and `id` is that redrive; `mismatch`: for another body.
 */
export async function makeRedrive(
  redis: RedisClient,
  keys: RedriveKeys,
  { createdAt, id, owner, plan }: Pick<Redrive, "id" | "owner" | "plan" | "createdAt">,
  openAtMost: number,
  idempotency: Idempotency | null = null,
): Promise<{ kind: "made" | "too many" | "replayed" | "mismatch"; id: string }> {
  const { filter, rate, total } = plan;
  const [kind, made] = await makeScript.run(redis, {
    keys: {
      redrive: keys.redrive(id),
      open: keys.open(owner),
      owned: keys.owned(owner),
      idempotency: keys.idempotency(owner, idempotency?.key ?? ""),
    },
    fields: {
      id,
      nowMs: createdAt,
      queue: keys.queue,
      resultTtlMs: plan.accept.resultTtlMs,
      owner,
      plan: JSON.stringify(plan),
      openAtMost,
      // Shown in the queue page only; the plan is decisive.
      jobData: JSON.stringify({ v: 1, owner, filter, rate, total }),
      bodyHashes: idempotency === null ? null : idempotencyHashes(idempotency),
    },
  });
  return { kind, id: made };
}

const fields = ["owner", "plan", "created", "started", "ended", "end", "skipped", "place", "paced"] as const;

/** Reads a redrive; null for an unknown one. */
export async function readRedrive(redis: RedisClient, keys: RedriveKeys, id: string): Promise<Redrive | null> {
  const [owner, plan, created, started, ended, end, skipped, place, paced] = await redis.hmget(
    keys.redrive(id),
    ...fields,
  );
  if (owner == null || plan == null) return null;
  const at = (text: string | null | undefined) => (text == null ? null : Number(text));
  return {
    id,
    owner,
    plan: redrivePlanSchema.parse(JSON.parse(plan)),
    createdAt: Number(created),
    startedAt: at(started),
    endedAt: at(ended),
    end: (end ?? null) as Redrive["end"],
    skipped: Number(skipped ?? 0),
    place: place == null ? null : redrivePlaceSchema.parse(JSON.parse(place)),
    pacedUntil: at(paced),
  };
}

/** Number of failures accepted anew by a redrive, over all its models, whose hash slots hold the counts. */
export async function countRedriven(redis: RedisClient, keyPrefix: string, { id, plan }: Redrive): Promise<number> {
  const models = [...new Set(plan.lots.map(({ model }) => model))];
  const counts = await Promise.all(models.map((model) => redis.get(modelKeys(keyPrefix, model).redriven(id))));
  return counts.reduce((sum, count) => sum + Number(count ?? 0), 0);
}

const advanceScript = defineScript({
  name: "millraceAdvanceRedrive",
  file: "predictions/advance-redrive",
  keys: { redrive: text("The redrive."), lock: text("The lock of its job.") },
  fields: {
    token: text("The lock's token."),
    nowMs: number("The current time, the start if it is the first."),
    place: optional(text("The place reached, as JSON.")),
    skipped: number("Failures skipped since the last call."),
    pacedUntilMs: number("Time of the next slice."),
  },
  answer: answers<0 | 1>("1: the place is recorded."),
  whenFull: true,
});

/**
 * Records the place that a redrive has reached; false if it has ended or the job's lock has passed to another worker.
 */
export async function advanceRedrive(
  redis: RedisClient,
  keys: RedriveKeys,
  id: string,
  token: string,
  {
    nowMs,
    pacedUntil,
    place,
    skipped,
  }: { place: RedrivePlace | null; skipped: number; pacedUntil: number; nowMs: number },
): Promise<boolean> {
  const advanced = await advanceScript.run(redis, {
    keys: { redrive: keys.redrive(id), lock: `${keys.queue}${id}${bullKeys.lock}` },
    fields: {
      token,
      nowMs,
      place: place === null ? null : JSON.stringify(place),
      skipped,
      pacedUntilMs: pacedUntil,
    },
  });
  return advanced === 1;
}

const endScript = defineScript({
  name: "millraceEndRedrive",
  file: "predictions/end-redrive",
  keys: {
    redrive: text("The redrive."),
    open: text("The owner's redrives that have not ended."),
    interest: text("Watchers of the redrive."),
  },
  fields: {
    id: text("The redrive's id."),
    nowMs: number("Time of the end."),
    outcome: text("`succeeded` or `canceled`."),
    resultTtlMs: number("The result time."),
    noticeChannel: text("Prefix of the APIs' notice channels; an API's id follows."),
  },
  answer: answers<0 | 1>("1: it is ended now."),
  whenFull: true,
});

/** Ends a redrive and notifies its watchers; false if it had ended before. */
export async function endRedrive(
  redis: RedisClient,
  keys: RedriveKeys,
  keyPrefix: string,
  { id, owner, plan }: Redrive,
  end: "succeeded" | "canceled",
  nowMs: number,
): Promise<boolean> {
  const ended = await endScript.run(redis, {
    keys: { redrive: keys.redrive(id), open: keys.open(owner), interest: keys.interest(id) },
    fields: {
      id,
      nowMs,
      outcome: end,
      resultTtlMs: plan.accept.resultTtlMs,
      noticeChannel: noticeChannel(keyPrefix, ""),
    },
  });
  return ended === 1;
}
