import type { Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { cacheHit } from "./webhooks/cache-hit.js";
import { deliveries } from "./webhooks/deliveries.js";
import { openWaits } from "./webhooks/open-waits.js";

/** Ways of results to callers: webhooks, waits, and answers from the cache. */
export const webhooks: Scenario = async (context) => {
  const load = startLoad(context.onClose);
  return [
    ...(await deliveries(context, load)),
    ...(await openWaits(context, load)),
    ...(await cacheHit(context, load)),
  ];
};
