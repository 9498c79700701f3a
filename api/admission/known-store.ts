import type { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { RequestHandler } from "express";

const retryAfterSeconds = 5;

/**
 * Lets `then` handle a request while the store is the known one; else throws `store_swapped`, before the key is looked
 * up. In another store, accepted work and stored keys are unknown: 404 and 401 would mislead callers, and new work
 * would be split between both.
 */
export function inKnownStore(marker: Pick<StoreMarker, "complaint">, then: RequestHandler): RequestHandler {
  return (request, response, next) => {
    if (marker.complaint !== null) {
      const detail =
        "The store was emptied or replaced. Nothing is accepted or read until an operator has looked at it.";
      throw new ServiceError("store_swapped", detail, { retryAfterSeconds });
    }
    return then(request, response, next);
  };
}
