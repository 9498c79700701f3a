const daySeconds = 86_400;

/** Time for which indexes and deduplication keys outlive the results that they lead to. */
export const keptBeyondResultMs = 7 * daySeconds * 1000;

/** Time for which the set of predictions with watchers of their start is kept after a follower's, in seconds. */
export const followedStartsSeconds = 7 * daySeconds;

/** Time for which a watcher's entries are kept, in seconds; followers' entries do not expire. */
export const watchedSeconds = daySeconds;

/** Time for which an idempotency key is kept, in seconds. */
export const idempotencySeconds = daySeconds;

/** Time for which a deduplication key is kept that has passed to another prediction, in seconds. */
export const passedDedupSeconds = 3600;
