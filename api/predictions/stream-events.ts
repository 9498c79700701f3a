import { watchPrediction } from "@millrace/shared/scripts/predictions/watch.js";
import { oneLine } from "@millrace/shared/service/one-line.js";
import type { Response } from "express";
import { type LookedUp, type LookUpDependencies, lookUpPrediction, modelOfId } from "./look-up-prediction.js";

const renewEveryMs = 60_000;
const heartbeatMs = 15_000;

/**
 * Sends a prediction's states as server-sent events `status` until it is final. An event's id names the state, so that
 * a client that reconnects with `Last-Event-ID` is sent only what it has not seen; after the final one, 204 tells it
 * to stop.
 */
export async function streamEvents(
  deps: LookUpDependencies,
  owner: string,
  id: string,
  lastEventId: string | undefined,
  response: Response,
  gone: AbortSignal,
): Promise<void> {
  const { keys } = await modelOfId(deps, id);
  let latest = await lookUpPrediction(deps, owner, id);
  let seen = lastEventId;
  if (latest.final && stateId(latest) === seen) {
    response.status(204).end();
    return;
  }
  response.writeHead(200, {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
  });
  const show = () => {
    const state = stateId(latest);
    if (state === seen) return;
    seen = state;
    response.write(`event: status\nid: ${state}\ndata: ${oneLine(latest.json)}\n\n`);
  };
  const heartbeat = setInterval(() => response.write(": still here\n\n"), heartbeatMs);
  try {
    show();
    while (!latest.final && !gone.aborted && !deps.notices.closed) {
      const waiter = deps.notices.wait(id, renewEveryMs, latest.expiresAt ?? null);
      const stop = () => waiter.close();
      gone.addEventListener("abort", stop);
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
        gone.removeEventListener("abort", stop);
        waiter.close();
      }
    }
  } catch {
    // The store went away in mid-stream; the client comes back with Last-Event-ID.
  } finally {
    clearInterval(heartbeat);
    response.end();
  }
}

/** Names a state: its status and how often it was tried. */
function stateId({ json }: LookedUp): string {
  const { attempts, status } = JSON.parse(json) as { attempts: number; status: string };
  return `${status}-${attempts}`;
}
