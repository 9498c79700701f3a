import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { tagOfId } from "@millrace/shared/redis/ids.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { type Attempt, type Delivery, readDelivery, redeliver } from "@millrace/shared/scripts/deliveries.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type RequestHandler, Router } from "express";
import type { z } from "zod";
import { ownBatch } from "../batches/own-batch.js";
import { acceptsJson, onlyQuery } from "../http/http-preferences.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { type LookUpDependencies, lookUpPrediction, modelOfId } from "../predictions/look-up-prediction.js";
import type { deliverySchema } from "../predictions/prediction-schema.js";

const unknownDelivery = () => new ServiceError("delivery_not_found", "There is no such delivery, or it has expired.");

/** `GET /v1/predictions/{id}/deliveries`, the same of batches, and `POST /v1/deliveries/{id}/redeliver`. */
export function deliveryRoutes(
  deps: LookUpDependencies & {
    mayPredict: RequestHandler;
    mayReadPrediction: readonly RequestHandler[];
    mayReadBatch: readonly RequestHandler[];
  },
): Router {
  const router = Router();

  resource(router, "/v1/predictions/:id/deliveries", {
    get: [
      ...deps.mayReadPrediction,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        const { owner } = response.locals.reader;
        const id = request.params.id;
        await lookUpPrediction(deps, owner, id);
        const { keys } = await modelOfId(deps, id);
        sendJson(response, 200, await listDeliveries(deps.redis, keys, owner, id));
      },
    ],
  });

  resource(router, "/v1/batches/:id/deliveries", {
    get: [
      ...deps.mayReadBatch,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        const { owner } = response.locals.reader;
        const id = request.params.id;
        const { model } = await ownBatch(deps, owner, id);
        sendJson(response, 200, await listDeliveries(deps.redis, model.keys, owner, id));
      },
    ],
  });

  resource(router, "/v1/deliveries/:id/redeliver", {
    post: [
      deps.mayPredict,
      acceptsJson,
      async (request, response) => {
        const { owner } = response.locals.caller;
        const id = request.params.id;
        const tag = tagOfId(id);
        const model = tag === null ? null : await deps.directory.findByTag(tag);
        if (model === null) throw unknownDelivery();
        const delivery = await readDelivery(deps.redis, model.keys, id);
        if (delivery?.owner !== owner) throw unknownDelivery();
        const outcome = await deps.confirmed(model.keys, (redis) =>
          redeliver(redis, model.keys, delivery, owner, deps.clock.now()),
        );
        if (outcome === "unknown") throw unknownDelivery();
        if (outcome === "pending") throw new ServiceError("state_conflict", "The delivery is still pending.");
        const now = (await readDelivery(deps.redis, model.keys, id)) ?? delivery;
        sendJson(response, 202, JSON.stringify(await describeDelivery(deps.redis, model.keys, now)));
      },
    ],
  });
  return router;
}

/** The owner's deliveries of a prediction or batch, as a JSON page. */
async function listDeliveries(redis: RedisClient, keys: ModelKeys, owner: string, id: string): Promise<string> {
  const ids = await redis.lrange(keys.deliveries(id), 0, -1);
  const found = await Promise.all(ids.map((deliveryId) => readDelivery(redis, keys, deliveryId)));
  const own = found.filter((delivery): delivery is Delivery => delivery?.owner === owner);
  return JSON.stringify({ data: await Promise.all(own.map((delivery) => describeDelivery(redis, keys, delivery))) });
}

async function describeDelivery(
  redis: RedisClient,
  keys: ModelKeys,
  delivery: Delivery,
): Promise<z.infer<typeof deliverySchema>> {
  const attempts = await redis.lrange(keys.attempts(delivery.id), 0, -1);
  return {
    id: delivery.id,
    object: "delivery",
    event: delivery.event,
    url: delivery.url,
    status: delivery.state,
    created_at: new Date(delivery.createdAt).toISOString(),
    attempts: attempts.map((text) => JSON.parse(text) as Attempt),
    urls: { redeliver: `/v1/deliveries/${delivery.id}/redeliver` },
  };
}
