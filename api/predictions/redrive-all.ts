import { readStoredOwners } from "@millrace/shared/predictions/storage-counter.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Caller } from "../access/authenticate.js";
import { inPlaceOf } from "../access/read-as.js";
import { type MakeRedriveDependencies, makeRedrive, type RedriveFilter } from "./make-redrive.js";

/**
 * Makes a redrive for every owner who has such failures, as JSON `{"data": […]}`. Owners are those with something
 * stored within the result time, which failures are a second after they happened. An owner who has reached the limit of
 * open redrives is left out.
 */
export async function redriveAll(
  deps: MakeRedriveDependencies,
  caller: Caller,
  filter: RedriveFilter,
  requestId: string,
  idempotencyKey: string | null,
): Promise<string> {
  const { clock, keyPrefix, redis, resultTtlSeconds } = deps;
  const made: string[] = [];
  for (const owner of await readStoredOwners(redis, keyPrefix, resultTtlSeconds, clock.now())) {
    try {
      const reader = inPlaceOf(caller, owner, ["operate"]);
      made.push((await makeRedrive(deps, reader, filter, requestId, idempotencyKey)).json);
    } catch (fault) {
      if (!(fault instanceof ServiceError && fault.code === "state_conflict")) throw fault;
    }
  }
  return `{"data":[${made.join(",")}]}`;
}
