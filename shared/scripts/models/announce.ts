import type { Announcement } from "../../models/announcement.js";
import { beatTtlMs } from "../../models/beat-times.js";
import { keptEvents } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { type ModelKeys, registryKey } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, flag, number, text } from "../lua/fields.js";
import { keptChanges } from "./traffic.js";

/**
 * Announces a version. Other files under a version that a living worker serves are refused; the announced ones stay. If
 * no traffic split is set, a new highest version takes all traffic; this counts as a change and can be rolled back. If
 * no other worker serves the version, it counts as newly loaded, and the misfits of earlier runs are forgotten.
 */
const announceScript = defineScript({
  name: "millraceAnnounce",
  file: "models/announce",
  keys: {
    versions: text("Announcements by version."),
    beats: text("Beats: `worker|version`, scored by its time of expiry."),
    meta: text("BullMQ's settings of the model's queue."),
    traffic: text("The traffic split."),
    trafficHistory: text("Earlier splits, newest first."),
    unjoined: text("Versions whose inputs share no run since a misfit, with the reason."),
  },
  fields: {
    version: text("The version."),
    digest: text("Digest of the version's files."),
    announcement: text("The announcement as JSON."),
    worker: text("The worker that serves it."),
    nowMs: number("The current time; earlier beats are dead."),
    aliveUntilMs: number("Time of expiry of the worker's beat."),
    keptEvents: number("Entries kept in the queue's event stream."),
    keptChanges: number("Changes of the split that can be rolled back."),
  },
  answer: answers<["same"] | ["new"] | ["conflict", servedDigest: string]>("Whether it is announced, and anew."),
  whenFull: true,
});

/** Also runs when Redis is full: its first write takes no memory. */
const registerScript = defineScript({
  name: "millraceRegister",
  file: "models/register",
  keys: { registry: text("Each model's revision.") },
  fields: { model: text("The model's name."), changed: flag("Whether its announcements changed.") },
});

/**
 * Announces a version that this worker serves to every API, permanently; resolves to the conflicting digest if refused.
 */
export async function announceVersion(
  redis: RedisClient,
  prefix: string,
  keys: ModelKeys,
  announcement: Announcement,
  worker: string,
  nowMs: number,
): Promise<{ announced: true } | { announced: false; servedDigest: string }> {
  const { digest, model, version } = announcement;
  const { beats, traffic, trafficHistory, unjoined, versions } = keys;
  const answer = await announceScript.run(redis, {
    keys: { versions, beats, meta: `${keys.queue}${bullKeys.meta}`, traffic, trafficHistory, unjoined },
    fields: {
      version,
      digest,
      announcement: JSON.stringify(announcement),
      worker,
      nowMs,
      aliveUntilMs: nowMs + beatTtlMs,
      keptEvents,
      keptChanges,
    },
  });
  if (answer[0] === "conflict") return { announced: false, servedDigest: answer[1] };
  // The registry is in another hash slot, so it cannot be part of the step; a worker that dies here announces again.
  const fields = { model, changed: answer[0] === "new" };
  await registerScript.run(redis, { keys: { registry: registryKey(prefix) }, fields });
  return { announced: true };
}

/** Makes every API read a model's announcements again. */
export const bumpRevision = (redis: RedisClient, prefix: string, model: string): Promise<number> =>
  redis.hincrby(registryKey(prefix), model, 1);

/** The digest that another living worker serves under a version; null without one. */
export async function digestElsewhere(
  redis: RedisClient,
  keys: ModelKeys,
  version: string,
  worker: string,
  nowMs: number,
): Promise<string | null> {
  const members = await redis.zrangebyscore(keys.beats, nowMs, "+inf");
  if (!members.some((member) => member.endsWith(`|${version}`) && !member.startsWith(`${worker}|`))) return null;
  const known = await redis.hget(keys.versions, version);
  return known === null ? null : (JSON.parse(known) as Announcement).digest;
}

const retireScript = defineScript({
  name: "millraceRetire",
  file: "models/retire",
  keys: {
    versions: text("Announcements by version."),
    beats: text("Beats: `worker|version`, scored by its time of expiry."),
  },
  fields: {
    version: text("The version."),
    worker: text("The worker that served it; empty for none."),
    nowMs: number("The current time; earlier beats are dead."),
  },
  answer: answers<0 | 1>("1: the version is retired now."),
});

/**
 * Retires a version unless another living worker serves it. New submissions then do not find it; accepted ones run on
 * the workers that are draining it, as long as there are any.
 */
export async function retireVersion(
  redis: RedisClient,
  prefix: string,
  keys: ModelKeys,
  { model, nowMs, version, worker = "" }: { model: string; version: string; worker?: string; nowMs: number },
): Promise<void> {
  const gone = await retireScript.run(redis, {
    keys: { versions: keys.versions, beats: keys.beats },
    fields: { version, worker, nowMs },
  });
  if (gone === 1) await bumpRevision(redis, prefix, model);
}

/** Whether a job of a version can still find a worker: the version is announced, or a worker is draining it. */
export async function isVersionKnown(
  redis: RedisClient,
  keys: ModelKeys,
  version: string,
  nowMs: number,
): Promise<boolean> {
  if ((await redis.hexists(keys.versions, version)) === 1) return true;
  const leaving = await redis.zrangebyscore(keys.leaving, nowMs, "+inf");
  return leaving.some((member) => member.endsWith(`|${version}`));
}
