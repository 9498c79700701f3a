import { type Redrive, redriveJson } from "@millrace/shared/predictions/redrive.js";
import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { tagOfId } from "@millrace/shared/redis/ids.js";
import { redriveKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { countRedriven, endRedrive, readRedrive } from "@millrace/shared/scripts/predictions/redrives.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { type RequestHandler, Router } from "express";
import { type Caller, modelsOf } from "../access/authenticate.js";
import { acceptsJson, onlyQuery, waitMsOf } from "../http/http-preferences.js";
import { sendJson, whenGone } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { awaitEnd } from "../predictions/await-end.js";
import type { Notices } from "../predictions/notices.js";

interface RedriveDependencies {
  redis: RedisClient;
  confirmed: ConfirmedWrite;
  notices: Notices;
  keyPrefix: string;
  clock: Clock;
  log: Logger;
  mayListFailures: readonly RequestHandler[];
  mayReadRedrive: readonly RequestHandler[];
  mayEndRedrive: readonly RequestHandler[];
}

/** `/v1/failures/redrives`: the caller's redrives, or for operators any, listed, read, waited for, canceled. */
export function redriveRoutes(deps: RedriveDependencies): Router {
  const router = Router();
  const { keyPrefix, redis } = deps;
  const home = redriveKeys(keyPrefix);
  const jsonOf = async (redrive: Redrive) => redriveJson(redrive, await countRedriven(redis, keyPrefix, redrive));
  const read = async (caller: Caller, id: string, scope: "read" | "predict"): Promise<Redrive> => {
    const redrive = tagOfId(id) === home.tag ? await readRedrive(redis, home, id) : null;
    if (redrive === null || !isFor(caller, redrive, scope)) {
      throw new ServiceError("redrive_not_found", "There is no such redrive, or it has expired.");
    }
    return redrive;
  };

  resource(router, "/v1/failures/redrives", {
    get: [
      ...deps.mayListFailures,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "owner");
        const { reader } = response.locals;
        const ids = await redis.zrevrange(home.owned(reader.owner), 0, -1);
        const found = await Promise.all(ids.map((id) => readRedrive(redis, home, id)));
        const own = found.filter((redrive): redrive is Redrive => redrive !== null && isFor(reader, redrive, "read"));
        const data = await Promise.all(own.map(jsonOf));
        sendJson(response, 200, `{"data":[${data.join(",")}]}`);
      },
    ],
  });

  resource(router, "/v1/failures/redrives/:id", {
    get: [
      ...deps.mayReadRedrive,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "wait");
        const waitMs = waitMsOf(request.query.wait, "bad_query");
        const id = request.params.id;
        const gone = whenGone(response);
        const { reader } = response.locals;
        const ending = {
          id,
          keys: home,
          read: () => read(reader, id, "read"),
          isFinal: ({ end }: Redrive) => end !== null,
        };
        const redrive = await awaitEnd(deps, ending, waitMs, gone);
        if (!gone.aborted) sendJson(response, 200, await jsonOf(redrive));
      },
    ],
  });

  resource(router, "/v1/failures/redrives/:id/cancel", {
    post: [
      ...deps.mayEndRedrive,
      acceptsJson,
      async (request, response) => {
        const { reader } = response.locals;
        const id = request.params.id;
        const redrive = await read(reader, id, "predict");
        const end = () =>
          deps.confirmed(home, (writes) => endRedrive(writes, home, keyPrefix, redrive, "canceled", deps.clock.now()));
        if (redrive.end !== null || !(await end()))
          throw new ServiceError("state_conflict", "The redrive is already final.");
        deps.log.info("redrive canceled", { redrive_id: id, request_id: response.locals.requestId });
        sendJson(response, 200, await jsonOf(await read(reader, id, "predict")));
      },
    ],
  });
  return router;
}

/** Whether a redrive is the caller's, and of no model that the key is not for. */
function isFor(caller: Caller, { owner, plan }: Redrive, scope: "read" | "predict"): boolean {
  const globs = modelsOf(caller, scope, "operate");
  return owner === caller.owner && (globs === null || plan.lots.every(({ model }) => fitsGlob(model, globs)));
}
