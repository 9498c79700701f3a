import type { FailureCode } from "../service/failure-codes.js";
import { digestOf } from "./digest.js";
import { modelTag } from "./ids.js";
import { fairKeys, fairName, keyNames } from "./key-names.js";

/**
 * All Redis keys, and ids; the parts of their names that Lua knows too are in `key-names.ts`. Rules that hold for every
 * key:
 * - All keys of one model carry the same hash tag, `{tag}`, so that Redis Cluster keeps them in one slot and one Lua
 *   step can change them together; different models spread over the slots.
 * - An id begins with its model's tag, so that it leads to its slot without a look-up; the rest is 100 random bits.
 * - BullMQ's keys are `<prefix>:{tag}:<model>:…`; ours are `<prefix>:{tag}/…`, which no queue can collide with.
 */
export interface ModelKeys {
  /** The model's tag: 8 characters, also the beginning of each of its ids. */
  tag: string;
  /** What all of our own keys of the model begin with. */
  base: string;
  /** BullMQ's `prefix` option for the model's queue, whose name is the model's. */
  queuePrefix: string;
  /** What the queue's own keys begin with, including the last colon; a job's hash is this and its id. */
  queue: string;
  /**
   * Sorted set: an owner's ids that wait, in order; and the owners who have any, by whose turn it is. See
   * `scripts/queue/fair-queue.lua`.
   */
  waitingOf(owner: string): string;
  waitingOwners: string;
  /** Hash: rows, bytes and jobs that wait, of all and of each owner. */
  waitingLoad: string;
  /** The model's queue of webhook deliveries, likewise; its name is no model's. */
  webhookQueueName: string;
  webhookQueue: string;
  /** Hash: version → what its workers announced. Kept for good. */
  versions: string;
  /** Sorted set: `worker|version` → until when (ms) it counts as alive. */
  beats: string;
  /** Sorted set: `worker|version` → until when (ms) that worker still runs what is left of a version that goes. */
  leaving: string;
  /** Hash: how submissions are split over versions; see `scripts/traffic.ts`. */
  traffic: string;
  /** List: what the split was before each change of it, newest first. */
  trafficHistory: string;
  /** Set: versions that no worker is to load. */
  unloaded: string;
  /** Hash: version → why its inputs share no run though they might, as a run has shown; see `unjoined.ts`. */
  unjoined: string;
  /** Sorted set: what living workers could not load and why, as JSON → until when (ms) that holds. */
  refusals: string;
  /** Sorted set: breakers of workers that are not closed, as JSON → until when (ms) that holds; see `breaker.ts`. */
  breakers: string;
  /** Hash: how shadow versions compare with what they shadow. */
  shadows: string;
  /** Hash: what became of predictions in one hour (hours since the epoch). */
  statistics(hour: number): string;
  /** Hash: how the inputs of one hour were spread. */
  drift(hour: number): string;
  /** Hash: prediction id → what the slot that runs it was given, from the run's begin to its end. */
  running: string;
  /** Hash: prediction id → how often whatever ran it alone died together with its whole worker. */
  deaths: string;
  /** Written once: the final prediction, with the result time as TTL. */
  result(id: string): string;
  /** List: the pieces of what is too large for a job or a result; see `blob.ts`. */
  blob(id: string): string;
  /** Hash: what was counted of a version; see `statistics-tally.ts`. */
  tally(version: string): string;
  /** List: who is to hear of its end, `w<API>` for a caller who waits there, `f<follower>` for a webhook. */
  interest(id: string): string;
  /** Hash: prediction id → `1` if it has started, of those that are final and still have followers to be told. */
  ending: string;
  /** Hash: prediction id → `<submissions joined to it> <owner>`; `+` and `+<owner>` → how many wait. */
  joins: string;
  /** Set: predictions whose start somebody wants to hear of, too; mostly there are none. */
  starts: string;
  /** `p<id>` while a prediction of this kind is on its way, `c<output>` while its output is cached. */
  dedup(hash: string): string;
  /** Sorted set: predictions that expire unless they begin before, by when (ms). */
  expiring: string;
  /** Sorted set: the hashes of cached outputs by age. */
  cache: string;
  /** `<hash of the body>|<id>`: what was accepted under an owner's idempotency key. */
  idempotency(owner: string, key: string): string;
  /** What that key's name ends with. */
  idempotencyName(owner: string, key: string): string;
  /** Hash: a webhook delivery. */
  delivery(deliveryId: string): string;
  /** List: the tries of a delivery. */
  attempts(deliveryId: string): string;
  /** List: the delivery ids of a prediction. */
  deliveries(id: string): string;
  /** Hash: what the deliveries of one event send, and how many of them are open. */
  webhookBody(id: string, event: string): string;
  /** W3C traceparent of the request that submitted it; only where workers are traced. */
  trace(id: string): string;
  /** Sorted set: an owner's prediction ids of this model by creation time. */
  owned(owner: string): string;
  /** Sorted set: an owner's failed predictions with that code by when they failed; see `scripts/failures.ts`. */
  failures(owner: string, code: FailureCode): string;
  /** How many of the model's failures a redrive has had accepted anew. */
  redriven(id: string): string;
  /** The model's queue of batch chunks; its name is no model's. */
  batchQueueName: string;
  batchQueue: string;
  /** Rows of batches that are not done yet. */
  bulkRows: string;
  /** Hash: the same of each owner. */
  bulkRowsOf: string;
  /** Hash: bytes of inputs of each owner's batches that are not done yet. */
  bulkBytesOf: string;
  /** Hash: what of the chunk queue waits, and how fast it drains. */
  chunkLoad: string;
  /** Hash: a batch; see `batch.ts`. */
  batch(id: string): string;
  /** Hash: chunk number → inputs. Expires while the batch is uploaded; a chunk goes when its results are there. */
  batchChunks(id: string): string;
  /** Text of u32, little-endian: the lines of each chunk, in order. */
  batchLines(id: string): string;
  /** Hash: chunk number → outputs. */
  batchResults(id: string): string;
  /** Hash: chunk number → the inputs of those of its lines that failed. */
  batchFailed(id: string): string;
  /** Sorted set: an owner's batch ids of this model by creation time. */
  ownedBatches(owner: string): string;
}

/** The keys of one model under the installation's key prefix. */
export function modelKeys(prefix: string, model: string): ModelKeys {
  const tag = modelTag(model);
  const base = `${prefix}:{${tag}}`;
  return {
    tag,
    base,
    queuePrefix: base,
    queue: `${base}:${model}:`,
    waitingOf: (owner) => `${base}${fairName}${model}:${fairKeys.of}${owner}`,
    waitingOwners: `${base}${fairName}${model}:${fairKeys.owners}`,
    waitingLoad: `${base}${fairName}${model}:${fairKeys.load}`,
    webhookQueueName: `${model}~webhooks`,
    webhookQueue: `${base}:${model}~webhooks:`,
    versions: `${base}/versions`,
    beats: `${base}/beats`,
    leaving: `${base}/leaving`,
    traffic: `${base}/traffic`,
    trafficHistory: `${base}/traffic-history`,
    unloaded: `${base}/unloaded`,
    unjoined: `${base}/unjoined`,
    refusals: `${base}/refusals`,
    breakers: `${base}/breakers`,
    shadows: `${base}/shadows`,
    statistics: (hour) => `${base}/statistics:${hour}`,
    drift: (hour) => `${base}/drift:${hour}`,
    running: `${base}${keyNames.running}`,
    deaths: `${base}${keyNames.deaths}`,
    result: (id) => `${base}${keyNames.result}${id}`,
    blob: (id) => `${base}${keyNames.blob}${id}`,
    tally: (version) => `${base}/tally:${version}`,
    interest: (id) => `${base}${keyNames.interest}${id}`,
    ending: `${base}/ending`,
    joins: `${base}${keyNames.joins}`,
    starts: `${base}${keyNames.starts}`,
    dedup: (hash) => `${base}${keyNames.dedup}${hash}`,
    expiring: `${base}${keyNames.expiring}`,
    cache: `${base}/cache`,
    idempotency: (owner, key) => `${base}${keyNames.idempotency}${owner}:${digestOf(key)}`,
    idempotencyName: (owner, key) => `${owner}:${digestOf(key)}`,
    delivery: (id) => `${base}${keyNames.delivery}${id}`,
    attempts: (id) => `${base}/attempts:${id}`,
    deliveries: (id) => `${base}${keyNames.deliveries}${id}`,
    webhookBody: (id, event) => `${base}${keyNames.webhookBody}${id}${keyNames.beforeEvent}${event}`,
    trace: (id) => `${base}/trace:${id}`,
    owned: (owner) => `${base}${keyNames.owned}${owner}`,
    failures: (owner, code) => `${base}/failures:${owner}:${code}`,
    redriven: (id) => `${base}/redriven:${id}`,
    batchQueueName: `${model}~batches`,
    batchQueue: `${base}:${model}~batches:`,
    bulkRows: `${base}${keyNames.bulkRows}`,
    bulkRowsOf: `${base}${keyNames.bulkRowsOf}`,
    bulkBytesOf: `${base}${keyNames.bulkBytesOf}`,
    chunkLoad: `${base}${fairName}${model}~batches:${fairKeys.load}`,
    batch: (id) => `${base}${keyNames.batch}${id}`,
    batchChunks: (id) => `${base}${keyNames.batchChunks}${id}`,
    batchLines: (id) => `${base}${keyNames.batchLines}${id}`,
    batchResults: (id) => `${base}${keyNames.batchResults}${id}`,
    batchFailed: (id) => `${base}${keyNames.batchFailed}${id}`,
    ownedBatches: (owner) => `${base}/owned-batches:${owner}`,
  };
}

/** Hash: model name → revision of its announcements. This and what follows are not in a model's slot. */
export const registryKey = (prefix: string): string => `${prefix}:models`;

/** The name of the queue of redrives, which is no model's. */
export const redrivesName = "~redrives";

/**
 * The keys of redrives, all in one slot, named as those of a model are: their queue, whose they are, who waits for one.
 */
export function redriveKeys(prefix: string): RedriveKeys {
  const { base, idempotency, interest, owned, queue, queuePrefix, starts, tag } = modelKeys(prefix, redrivesName);
  return {
    ...{ base, idempotency, interest, owned, queue, queuePrefix, starts, tag },
    redrive: (id) => `${base}/redrive:${id}`,
    open: (owner) => `${base}/open:${owner}`,
  };
}

export interface RedriveKeys
  extends Pick<ModelKeys, "base" | "idempotency" | "interest" | "owned" | "queue" | "queuePrefix" | "starts" | "tag"> {
  /** Hash: a redrive; see `redrive.ts`. */
  redrive(id: string): string;
  /** Set: an owner's redrives that have not ended. */
  open(owner: string): string;
}

/** Sorted set: names of the model folders that workers refuse → until when (ms); see `refused-models.ts`. */
export const refusedModelsKey = (prefix: string): string => `${prefix}:refused`;

/** Sorted set: inference workers → until when (ms) each counts as alive. */
export const workersKey = (prefix: string): string => `${prefix}:workers`;

/** Which worker looks for what can only be mended later, for all of them. */
export const sweeperKey = (prefix: string): string => `${prefix}:{sweeper}`;

/** Which worker's metrics have the backlog of all models, so that no scrape of a worker costs more with each worker. */
export const backlogReporterKey = (prefix: string): string => `${prefix}:{backlog}`;

/** What the keys for the check of readiness begin with; they are in one slot, as those of a model are. */
export const readyBase = (prefix: string): string => `${prefix}:{ready}`;

/** The key whose master's clock counts for all; nothing is kept under it. */
export const storeClockKey = (prefix: string): string => `${prefix}:{clock}`;

/** A marker of the store, by which a swap is noticed; `spread` tells the markers of a cluster's masters apart. */
export const storeMarkerKey = (prefix: string, spread = ""): string => `${prefix}:{store${spread}}/marker`;

/** For a while, the marker that an operator has accepted in place of another, under that marker's key. */
export const acceptedMarkerKey = (markerKey: string): string => `${markerKey}-accepted`;

/** The key of the check whether Redis takes writes, after the base of a model or `readyBase`. */
export const probeKey = (base: string): string => `${base}/probe`;

/** The key that is written before a replica's acknowledgement is awaited, after the base of a model or `readyBase`. */
export const confirmedKey = (base: string): string => `${base}/confirmed`;

/** Hash: owner → bytes stored in one period of so many seconds, until the result time is over. */
export const storedKey = (prefix: string, periodSeconds: number, period: number): string =>
  `${prefix}:stored:${periodSeconds}:${period}`;

/** Hash: API key's id → its record. */
export const apiKeysKey = (prefix: string): string => `${prefix}:api-keys`;

/** Hash: API key's id → its last use (ms). */
export const apiKeyUsesKey = (prefix: string): string => `${prefix}:api-keys-used`;

/** The channel that tells APIs of changed keys. */
export const keyChangesChannel = (prefix: string): string => `${prefix}:api-keys-changed`;

/** What the keys of a rate limit begin with, up to the colon before who is limited. */
export const limitPrefix = (prefix: string, limit: string): string => `${prefix}:limit:${limit}`;

/** The channel on which workers hear that an admin wants their folders looked at. */
export const ordersChannel = (prefix: string): string => `${prefix}:orders`;

/** Hash: worker → what came of an order there. */
export const orderKey = (prefix: string, order: string): string => `${prefix}:order:${order}`;

/** The channel on which workers hear of predictions that ended while they may still run them. */
export const cancelChannel = (prefix: string): string => `${prefix}:cancels`;

/** The channel on which an API hears of the predictions that its callers wait for. */
export const noticeChannel = (prefix: string, apiId: string): string => `${prefix}:notices:${apiId}`;
