import type { FullQueue } from "@millrace/shared/scripts/queue/accept-outcome.js";
import { ServiceError } from "@millrace/shared/service/errors.js";

/** What part of what waits is to have begun before it is worth trying again. */
const roomPart = 0.05;
const longestSeconds = 300;
/** Where nothing was begun lately, so that nobody can tell. */
const unknownSeconds = 30;

const units = { jobs: "predictions", rows: "rows", bytes: "bytes of input" };

/** There is no room for more predictions of this model; when to try again is told by how fast the queue drains. */
export function queueFull({ held, jobs, perSecond, unit, whose }: FullQueue): ServiceError {
  const of = whose === "own" ? "of yours" : "of this model";
  const seconds = perSecond > 0 ? Math.ceil(Math.max(1, jobs * roomPart) / perSecond) : unknownSeconds;
  return new ServiceError("queue_full", `${held} ${units[unit]} ${of} wait already`, {
    retryAfterSeconds: Math.min(longestSeconds, seconds),
  });
}
