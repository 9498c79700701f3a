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
