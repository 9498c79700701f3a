/** Times of a worker, and one priority, that no setting changes; only tests hand in others. */
export interface WorkerTiming {
  /** Lifetime of a job's lock that its worker does not renew, in ms. Renewed four times in it. */
  lockMs: number;
  /** Interval of a worker's checks for jobs with an expired lock, in ms. */
  stalledCheckMs: number;
  /** Deadline for Redis at a start, in ms. */
  redisDeadlineMs: number;
  /** First open time of a circuit breaker, in ms. It doubles up to a minute. */
  breakerOpenMs: number;
  /** The most that one try of a webhook takes, in ms. */
  deliveryDeadlineMs: number;
  /** The first pause of a receiver that fails in a row, in ms. It doubles up to five minutes. */
  hostPauseMs: number;
  /** When all APIs know of a version that leaves, in ms. More than an API's `modelsRereadMs`. */
  versionNoticedMs: number;
  /** Pause before a retry of a version that killed its loader or disagrees with another worker's, in ms. */
  versionRetryMs: number;
  /** A worker whose main thread makes no progress for so long counts as dead, in ms. */
  hangMs: number;
  /** Duration of a load from which on it goes on in a process of its own, if other versions wait, in ms. */
  slowLoadMs: number;
  /** The nice value of the process of shadow versions: 19 is the lowest priority. */
  shadowNice: number;
}

/** Times of an API that no setting changes; only tests hand in others. */
export interface ApiTiming {
  /** Deadline for Redis at a start, in ms. */
  redisDeadlineMs: number;
  /** Deadline of a command to Redis, in ms. */
  redisCommandMs: number;
  /**
   * Interval at which a waiting request reads its prediction, in case the notice was lost, in ms. Up to 10 s of jitter
   * come on top.
   */
  noticesRereadMs: number;
  /**
   * Interval at which announcements of models are read, in ms. A worker's `versionNoticedMs` must be more than that.
   */
  modelsRereadMs: number;
  /** Delay of a timer from which on new work is refused, in ms. */
  overloadLagMs: number;
}

/** The product's worker. */
export const workerTiming: WorkerTiming = {
  lockMs: 5000,
  stalledCheckMs: 1000,
  redisDeadlineMs: 30_000,
  breakerOpenMs: 5000,
  deliveryDeadlineMs: 10_000,
  hostPauseMs: 5000,
  versionNoticedMs: 3500,
  versionRetryMs: 5000,
  hangMs: 60_000,
  slowLoadMs: 5000,
  shadowNice: 19,
};

/** The product's API. */
export const apiTiming: ApiTiming = {
  redisDeadlineMs: 10_000,
  redisCommandMs: 1500,
  noticesRereadMs: 15_000,
  modelsRereadMs: 2000,
  overloadLagMs: 1000,
};
