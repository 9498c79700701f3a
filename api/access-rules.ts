import type { Scope } from "@millrace/shared/access/api-keys.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { redriveKeys } from "@millrace/shared/redis/keys.js";
import type { StoreMarker } from "@millrace/shared/redis/store-marker.js";
import { readBatch } from "@millrace/shared/scripts/batches/read-batch.js";
import { readPredictionOwner } from "@millrace/shared/scripts/predictions/read.js";
import { readRedrive } from "@millrace/shared/scripts/predictions/redrives.js";
import type { RequestHandler } from "express";
import { type AuthDependencies, mayHaveScope, requireScope } from "./access/authenticate.js";
import { listsAs, readsAs } from "./access/read-as.js";
import { inKnownStore } from "./admission/known-store.js";
import { type LoopWatch, shedWhenDrowning } from "./admission/loop-watch.js";
import type { KnownModel } from "./models/model-directory.js";

interface AccessDependencies extends AuthDependencies {
  redis: RedisClient;
  keyPrefix: string;
  marker: StoreMarker;
  loop: LoopWatch;
}

/** Who may do what: each route begins with one of these. `test/access/scopes.test.ts` holds them against a table. */
export interface AccessRules {
  /** Any key that is known. */
  mayKnow: RequestHandler;
  /** No key at all; one that may read sets `response.locals.caller`. */
  mayTellMore: RequestHandler;
  mayPredict: RequestHandler;
  /** For what makes work: also refused while this process is overloaded. */
  maySubmit: readonly RequestHandler[];
  /** Lists; with `?owner=` those of another owner, for `inspect`. */
  mayList: readonly RequestHandler[];
  /** A record by its id: the caller's own, or anyone's for `inspect`. */
  mayReadPrediction: readonly RequestHandler[];
  mayReadBatch: readonly RequestHandler[];
  /** Models, their figures, failures by kind, redrives: for operators, too. */
  mayReadModels: RequestHandler;
  mayReadFigures: RequestHandler;
  mayListFailures: readonly RequestHandler[];
  mayReadRedrive: readonly RequestHandler[];
  mayRedrive: readonly RequestHandler[];
  mayEndRedrive: readonly RequestHandler[];
  maySeeKeys: RequestHandler;
  mayOperate: RequestHandler;
  mayInspect: RequestHandler;
}

/** The rules of an API. */
export function accessRules(deps: AccessDependencies): AccessRules {
  const { audit, directory, keyPrefix, loop, marker, redis } = deps;
  const may = (...scopes: Scope[]) => requireScope(scopes, deps);
  const known = (handler: RequestHandler) => inKnownStore(marker, handler);
  const mayRead = known(may("read"));
  const mayPredict = known(may("predict"));
  const mayReadModels = known(may("read", "operate"));
  const home = redriveKeys(keyPrefix);

  const predictionOwner = async (id: string, model: KnownModel | null) =>
    model === null ? null : readPredictionOwner(redis, model.keys, id);
  const batchOwner = async (id: string, model: KnownModel | null) =>
    model === null ? null : ((await readBatch(redis, model.keys, id))?.owner ?? null);
  const redriveOwner = async (id: string) =>
    id.startsWith(home.tag) ? ((await readRedrive(redis, home, id))?.owner ?? null) : null;
  return {
    mayKnow: may("read", "predict", "inspect", "operate", "admin"),
    mayTellMore: mayHaveScope("read", deps),
    mayPredict,
    maySubmit: [shedWhenDrowning(loop), mayPredict],
    mayList: [mayRead, listsAs(audit)],
    mayReadPrediction: [mayRead, readsAs(audit, directory, predictionOwner)],
    mayReadBatch: [mayRead, readsAs(audit, directory, batchOwner)],
    mayReadModels,
    // Figures are told of a store that was swapped, too.
    mayReadFigures: may("read", "operate"),
    mayListFailures: [mayReadModels, listsAs(audit, ["inspect", "operate"])],
    mayReadRedrive: [mayReadModels, readsAs(audit, directory, redriveOwner, ["inspect", "operate"])],
    mayRedrive: [shedWhenDrowning(loop), known(may("predict", "operate"))],
    mayEndRedrive: [known(may("predict", "operate")), readsAs(audit, directory, redriveOwner, ["operate"])],
    maySeeKeys: may("inspect", "operate"),
    mayOperate: may("operate"),
    mayInspect: may("inspect"),
  };
}
