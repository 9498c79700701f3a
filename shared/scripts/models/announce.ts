import { type Announcement, beatTtlMs } from "../../models/announcement.js";
import { keptEvents } from "../../predictions/job.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import { bullKeys } from "../../redis/key-names.js";
import { type ModelKeys, registryKey } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { flag, number, text, unnamed } from "../lua/fields.js";
import { keptChanges } from "./traffic.js";

/**
 * Other bytes under a version that a living worker serves are refused; the first one there is right. Where nobody has
 * said how traffic is split, a new highest version takes it, which is a change like any other and can be rolled back.
 * Where nobody else serves the version it is loaded anew, and what runs have shown of it is forgotten.
 */
const announceScript = defineScript({
  name: "millraceAnnounce",
  file: "models/announce",
  keys: {
    versions: text("Announcements by version."),
    beats: text("Beats: `worker|version` by the time until which it counts as alive."),
    meta: text("BullMQ's settings of the model's queue."),
    traffic: text("The split of submissions."),
    trafficHistory: text("Earlier splits, newest first."),
    unjoined: text("Versions that were seen to share no run, with the reason."),
  },
  fields: {
    version: text("The version."),
    digest: text("Digest of the version's files."),
    announcement: text("The announcement as JSON."),
    worker: text("The worker that serves it."),
    nowMs: number("The present time; beats that ended before are dead."),
    aliveUntilMs: number("Time until which the worker counts as alive."),
    keptEvents: number("Entries kept in the queue's event stream."),
    keptChanges: number("Changes of the split that can be rolled back."),
  },
  whenFull: true,
});

/** It is done when Redis is full: its first write takes no memory. */
const registerScript = defineScript({
  name: "millraceRegister",
  file: "models/register",
  keys: { registry: text("Each model's revision.") },
  fields: { model: text("The model's name."), changed: flag("Whether its announcements have changed.") },
});

const beatScript = defineScript({
  name: "millraceBeat",
  file: "models/beat",
  keys: { beats: text("Beats of served or of leaving versions.") },
  fields: { silentBeforeMs: number("Beats that ended before are dropped.") },
  each: {
    aliveUntilMs: unnamed(number("Time until which the beat counts.")),
    member: unnamed(text("`worker|version`.")),
  },
  whenFull: true,
});

/** Tells every API, for good, of a version that this worker serves; resolves to the digest that stands against it. */
export async function announceVersion(
  redis: RedisClient,
  prefix: string,
  keys: ModelKeys,
  announcement: Announcement,
  worker: string,
): Promise<{ announced: true } | { announced: false; servedDigest: string }> {
  const now = Date.now();
  const { digest, model, version } = announcement;
  const { beats, traffic, trafficHistory, unjoined, versions } = keys;
  const [outcome, servedDigest] = (await announceScript.run(redis, {
    keys: { versions, beats, meta: `${keys.queue}${bullKeys.meta}`, traffic, trafficHistory, unjoined },
    fields: {
      version,
      digest,
      announcement: JSON.stringify(announcement),
      worker,
      nowMs: now,
      aliveUntilMs: now + beatTtlMs,
      keptEvents,
      keptChanges,
    },
  })) as [string, string?];
  if (outcome === "conflict") return { announced: false, servedDigest: servedDigest as string };
  // The registry is in a slot of its own, so it cannot be part of the step; a worker that dies here says it again.
  const fields = { model, changed: outcome === "new" };
  await registerScript.run(redis, { keys: { registry: registryKey(prefix) }, fields });
  return { announced: true };
}

/** Makes every API read what is announced of a model anew. */
export const bumpRevision = (redis: RedisClient, prefix: string, model: string): Promise<number> =>
  redis.hincrby(registryKey(prefix), model, 1);

/** The digest that another living worker serves under a version; null where none does. */
export async function digestElsewhere(
  redis: RedisClient,
  keys: ModelKeys,
  version: string,
  worker: string,
): Promise<string | null> {
  const members = await redis.zrangebyscore(keys.beats, Date.now(), "+inf");
  if (!members.some((member) => member.endsWith(`|${version}`) && !member.startsWith(`${worker}|`))) return null;
  const known = await redis.hget(keys.versions, version);
  return known === null ? null : (JSON.parse(known) as Announcement).digest;
}

const retireScript = defineScript({
  name: "millraceRetire",
  file: "models/retire",
  keys: {
    versions: text("Announcements by version."),
    beats: text("Beats: `worker|version` by the time until which it counts as alive."),
  },
  fields: {
    version: text("The version."),
    worker: text("The worker that served it; empty for none."),
    nowMs: number("The present time; beats that ended before are dead."),
  },
});

/**
 * Takes a version back unless another living worker serves it. From then on it is unknown to whoever submits, and what
 * was accepted for it runs on the workers that it is leaving, as long as there are any.
 */
export async function retireVersion(
  redis: RedisClient,
  prefix: string,
  keys: ModelKeys,
  { model, version, worker = "" }: { model: string; version: string; worker?: string },
): Promise<void> {
  const gone = await retireScript.run(redis, {
    keys: { versions: keys.versions, beats: keys.beats },
    fields: { version, worker, nowMs: Date.now() },
  });
  if (gone === 1) await bumpRevision(redis, prefix, model);
}

/** Whether a job of a version can still find a worker: it is announced, or is leaving one. */
export async function isVersionKnown(redis: RedisClient, keys: ModelKeys, version: string): Promise<boolean> {
  if ((await redis.hexists(keys.versions, version)) === 1) return true;
  const leaving = await redis.zrangebyscore(keys.leaving, Date.now(), "+inf");
  return leaving.some((member) => member.endsWith(`|${version}`));
}

/**
 * Says that the worker lives, which versions it serves and which are leaving it, and drops the beats of those that have
 * been silent for long.
 */
export async function beat(
  redis: RedisClient,
  keys: ModelKeys,
  worker: string,
  { leaving, serving }: { serving: readonly string[]; leaving: readonly string[] },
): Promise<void> {
  const now = Date.now();
  for (const [key, versions] of [
    [keys.beats, serving],
    [keys.leaving, leaving],
  ] as const) {
    await beatScript.run(redis, {
      keys: { beats: key },
      fields: { silentBeforeMs: now - 60_000 },
      each: versions.map((version) => ({ aliveUntilMs: now + beatTtlMs, member: `${worker}|${version}` })),
    });
  }
}

/** Says that the worker serves none of these any more. */
export async function endBeat(redis: RedisClient, keys: ModelKeys, worker: string, versions: string[]): Promise<void> {
  if (versions.length === 0) return;
  const members = versions.map((version) => `${worker}|${version}`);
  await redis.zrem(keys.beats, ...members);
  await redis.zrem(keys.leaving, ...members);
}
