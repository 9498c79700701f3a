/** What the keys of the owners of a queue have after `<prefix>:{tag}`; the queue's name follows. */
export const fairName = "/fair:";

/** The names of a model's own keys, after `<prefix>:{tag}`; an id or the like follows those that end in a colon. */
export const keyNames = {
  batch: "/batch:",
  batchChunks: "/batch-chunks:",
  batchFailed: "/batch-failed:",
  batchLines: "/batch-lines:",
  batchResults: "/batch-results:",
  blob: "/blob:",
  bulkRows: "/bulk-rows",
  bulkRowsOf: "/bulk-rows-of",
  bulkBytesOf: "/bulk-bytes-of",
  deaths: "/deaths",
  dedup: "/dedup:",
  deliveries: "/deliveries:",
  delivery: "/delivery:",
  expiring: "/expiring",
  idempotency: "/idempotency:",
  interest: "/interest:",
  joins: "/joins",
  owned: "/owned:",
  result: "/result:",
  running: "/running",
  starts: "/starts",
  webhookBody: "/webhook-body:",
  /** Follows an idempotency key: the hash of the body with its members sorted. */
  sortedBody: ":sorted",
  /** Before the event of the body of a webhook. */
  beforeEvent: ":",
  /** The end of the hash tag in a queue's prefix, and the same in the prefix of its fair queue. */
  tagToQueue: "}:",
  tagToFair: `}${fairName}`,
  /** Follows any key with a hash tag: a key in its slot that is never set. */
  neverSet: "~",
} as const;

/** What the entries of two kinds of key begin with: of those who wait for a prediction, and of a deduplication key. */
export const entryMarks = {
  /** An API to tell, whose id follows; a follower to call, who follows as JSON. */
  watcher: "w",
  follower: "f",
  /** A prediction on its way, whose id follows; a cached output, which follows. */
  pending: "p",
  cached: "c",
} as const;

/**
 * BullMQ's names of a queue's keys, after `<prefix>:<queue>:`; a job's hash has its id there, its lock `lock` besides.
 */
export const bullKeys = {
  active: "active",
  completed: "completed",
  delayed: "delayed",
  events: "events",
  failed: "failed",
  id: "id",
  lock: ":lock",
  marker: "marker",
  meta: "meta",
  paused: "paused",
  prioritized: "prioritized",
  stalled: "stalled",
  wait: "wait",
} as const;

/** The names of the keys of a queue's owners, after `<prefix>:{tag}/fair:<queue>:`; an owner follows `of`. */
export const fairKeys = {
  ahead: "ahead",
  load: "load",
  of: "of:",
  owners: "owners",
} as const;
