/** A worker's lifetime after its last heartbeat, in ms. */
export const beatTtlMs = 6000;

/** Interval of heartbeats, in ms. */
export const beatEveryMs = 2000;
