import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { changeTraffic, rollBackTraffic } from "@millrace/shared/scripts/models/traffic.js";
import { pointerSegment, ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { type RequestHandler, type Response, Router } from "express";
import { z } from "zod";
import type { JsonLimits } from "../http/check-json.js";
import { acceptsJson, onlyQuery } from "../http/http-preferences.js";
import { invalidRequest, optionalJsonBody, parseBody } from "../http/read-json.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { loadVersions, unloadVersions } from "../models/change-versions.js";
import { type KnownModel, type ModelDirectory, versionOf } from "../models/model-directory.js";
import type { orderOutcomeSchema } from "../models/model-schema.js";
import type { OrderOutcome } from "../models/order-models.js";
import { unknownModel } from "../models/unknown-model.js";
import { describeTraffic } from "./models.js";

const versionName = z.string().regex(/^[1-9]\d{0,8}$/, 'must be a version such as "1"');
/** A new split of the traffic. */
export const trafficBody = z
  .strictObject({
    weights: z
      .record(versionName, z.number().min(0).max(1_000_000))
      .refine((weights) => Object.values(weights).some((weight) => weight > 0), "must give a version more than 0")
      .nullable(),
    shadow: z
      .array(versionName)
      .max(8)
      .refine((list) => new Set(list).size === list.length, "must name each version once")
      .default([]),
  })
  .meta({ id: "TrafficChange" });
/** Which change is meant, where that is to be sure. */
export const rollbackBody = z.strictObject({ revision: z.int().min(0).optional() }).meta({ id: "Rollback" });
/** Which version, if one. */
export const loadBody = z.strictObject({ version: versionName.optional() }).meta({ id: "LoadOrder" });
/** Which version. */
export const unloadBody = z.strictObject({ version: versionName }).meta({ id: "UnloadOrder" });

interface Dependencies extends JsonLimits {
  directory: ModelDirectory;
  redis: RedisClient;
  keyPrefix: string;
  clock: Clock;
  log: Logger;
  mayOperate: RequestHandler;
}

/** Changes of a model while it is served, for operators: traffic, rollback, load, unload. */
export function modelChangeRoutes(deps: Dependencies): Router {
  const router = Router();
  const { clock, directory, log, redis } = deps;
  const before = [deps.mayOperate, acceptsJson, optionalJsonBody(deps)];
  const logged = (response: Response, change: string, about: { model: string } & Record<string, unknown>) =>
    log.info(change, { request_id: response.locals.requestId, ...about });

  resource(router, "/v1/models/:model/traffic", {
    put: [
      ...before,
      async (request, response) => {
        onlyQuery(request);
        const traffic = parseBody(trafficBody, request.body ?? {});
        const model = await latest(directory, request.params.model);
        const unknown = (version: string) => !model.versions.has(version);
        const complaints = [
          ...Object.keys(traffic.weights ?? {})
            .filter(unknown)
            .map((version) => ({
              detail: `there is no version ${version}`,
              pointer: `/weights${pointerSegment(version)}`,
            })),
          ...traffic.shadow.flatMap((version, i) =>
            unknown(version) ? [{ detail: `there is no version ${version}`, pointer: `/shadow/${i}` }] : [],
          ),
        ];
        if (complaints.length > 0) throw invalidRequest(complaints);
        await changeTraffic(redis, model.keys, traffic, clock.now());
        logged(response, "traffic changed", { model: model.name, ...traffic });
        sendJson(response, 200, JSON.stringify(describeTraffic(await latest(directory, request.params.model))));
      },
    ],
  });

  resource(router, "/v1/models/:model/rollback", {
    post: [
      ...before,
      async (request, response) => {
        onlyQuery(request);
        const { revision } = parseBody(rollbackBody, request.body ?? {});
        const model = await latest(directory, request.params.model);
        const outcome = await rollBackTraffic(redis, model.keys, revision ?? null, clock.now());
        if (outcome === "none")
          throw new ServiceError("state_conflict", "There is no change of the traffic to roll back.");
        if (outcome === "moved") {
          throw new ServiceError("state_conflict", `Revision ${revision} is not the last change of the traffic.`);
        }
        logged(response, "traffic rolled back", { model: model.name, revision });
        sendJson(response, 200, JSON.stringify(describeTraffic(await latest(directory, request.params.model))));
      },
    ],
  });

  resource(router, "/v1/models/:model/load", {
    post: [
      ...before,
      async (request, response) => {
        onlyQuery(request);
        const { version } = parseBody(loadBody, request.body ?? {});
        const name = request.params.model;
        const { outcome, ready } = await loadVersions(deps, name, version).finally(() =>
          logged(response, "load ordered", { model: name, version }),
        );
        sendJson(response, ready ? 200 : 202, JSON.stringify(describeOutcome(name, outcome)));
      },
    ],
  });

  resource(router, "/v1/models/:model/unload", {
    post: [
      ...before,
      async (request, response) => {
        onlyQuery(request);
        const { version } = parseBody(unloadBody, request.body ?? {});
        const model = await latest(directory, request.params.model);
        versionOf(model, version);
        const { shadow, weights } = model.traffic;
        if ((weights?.[version] ?? 0) > 0 || shadow.includes(version)) {
          throw new ServiceError("state_conflict", `The traffic names version ${version}. Change the traffic first.`);
        }
        const outcome = await unloadVersions(deps, model, [version]);
        logged(response, "unload ordered", { model: model.name, version });
        sendJson(response, outcome.unanswered === 0 ? 200 : 202, JSON.stringify(describeOutcome(model.name, outcome)));
      },
    ],
  });
  return router;
}

async function latest(directory: ModelDirectory, name: string): Promise<KnownModel> {
  const model = await directory.look(name);
  if (model === null) throw unknownModel(name);
  return model;
}

const describeOutcome = (model: string, outcome: OrderOutcome): z.infer<typeof orderOutcomeSchema> => ({
  model,
  workers: [...outcome.reports].map(([worker, versions]) => ({ worker, versions })),
  workers_unanswered: outcome.unanswered,
});
