import { mostInStep } from "@millrace/shared/predictions/job.js";
import type { Acceptance } from "@millrace/shared/scripts/queue/accept.js";

/** An acceptance of alice's with default fields, but for `overrides`. */
export const acceptanceOf = (id: string, overrides: Partial<Acceptance> = {}): Acceptance => ({
  id,
  owner: "alice",
  dataJson: '{"v":1,"o":"alice","ver":"1","x":"AA=="}',
  delayMs: 0,
  priority: 0,
  watcher: null,
  dedup: null,
  idempotency: null,
  follower: null,
  ...overrides,
});

/** The items in steps that are as long as those of the services. */
export const inSteps = <T>(all: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(all.length / mostInStep) }, (_, i) => all.slice(i * mostInStep, (i + 1) * mostInStep));
