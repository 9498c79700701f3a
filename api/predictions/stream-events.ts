import { watchPrediction } from "@millrace/shared/scripts/followers/watch.js";
import type { Response } from "express";
import { StatusEvents } from "../http/event-stream.js";
import { type LookedUp, type LookUpDependencies, lookUpPrediction, modelOfId } from "./look-up-prediction.js";

const renewEveryMs = 60_000;

/** Sends a prediction's states as events until it is final, or until `gone` says that nobody listens any more. */
export async function streamEvents(
  deps: LookUpDependencies,
  owner: string,
  id: string,
  response: Response,
  gone: AbortSignal,
): Promise<void> {
  const { keys } = await modelOfId(deps, id);
  let latest = await lookUpPrediction(deps, owner, id);
  const events = StatusEvents.open(response, { id: stateId(latest), final: latest.final });
  if (events === null) return;
  const show = () => events.show(stateId(latest), () => latest.json);
  try {
    show();
    while (!latest.final && !gone.aborted && !deps.notices.closed) {
      const waiter = deps.notices.wait(id, renewEveryMs, latest.expiresAt ?? null);
      waiter.closeWhen(gone);
      try {
        await watchPrediction(deps.redis, keys, id, deps.notices.apiId, { start: true, result: keys.result(id) });
        latest = await lookUpPrediction(deps, owner, id);
        show();
        while (!latest.final) {
          const news = await waiter.next();
          if (news === null) break;
          latest = news === "look" ? await lookUpPrediction(deps, owner, id) : { json: news.json, final: true };
          show();
        }
      } finally {
        waiter.close();
      }
    }
  } catch {
    // The store went away in mid-stream; the client comes back with Last-Event-ID.
  } finally {
    events.end();
  }
}

/** Names a state: its status and how often it was tried. */
function stateId({ json }: LookedUp): string {
  const { attempts, status } = JSON.parse(json) as { attempts: number; status: string };
  return `${status}-${attempts}`;
}
