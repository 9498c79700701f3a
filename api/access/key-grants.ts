import { readGrants } from "@millrace/shared/access/api-keys.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Caller } from "./authenticate.js";

/** What only an admin gives away: a key that could make one that reads everything would be one itself. */
const guarded = ["admin", "inspect"] as const;

/**
 * Whether a caller may make, rotate or revoke a key with these grants: an admin all, others none with the scope `admin`
 * or `inspect`. Throws `forbidden`.
 */
export function assertMayGrant(caller: Caller, grants: readonly string[]): void {
  if (caller.scopes.has("admin")) return;
  const beyond = guarded.find((scope) => readGrants(grants)?.scopes.has(scope));
  if (beyond === undefined) return;
  throw new ServiceError("forbidden", `Only a key with the scope admin manages keys with the scope ${beyond}.`);
}
