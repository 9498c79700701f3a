/** A receiver that asks for a later try than in a day is tried in a day. */
const longestRetryAfterMs = 86_400_000;
const jitter = 0.1;

/**
 * How long a `Retry-After` header (RFC 9110, 10.2.3: seconds or a date) asks to wait, in ms, at most a day. Null
 * without one, or where it is neither.
 */
export function retryAfterMs(header: string | undefined, nowMs: number): number | null {
  if (header === undefined) return null;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - nowMs;
  return Number.isFinite(ms) ? Math.max(0, Math.min(ms, longestRetryAfterMs)) : null;
}

/**
 * The delay before the next try, in ms: of the schedule, give or take a tenth, or what the receiver asked for if that
 * is longer. `tries`: how many have failed; `random`: 0 to 1.
 */
export function delayBeforeTry(
  scheduleMs: readonly number[],
  tries: number,
  askedMs: number | null,
  random = Math.random(),
): number {
  const plannedMs = (scheduleMs[tries - 1] ?? 0) * (1 + jitter * (random * 2 - 1));
  return Math.round(Math.max(plannedMs, askedMs ?? 0));
}
