import { isOwnerName, type Scope } from "@millrace/shared/access/api-keys.js";
import { tagOfId } from "@millrace/shared/redis/ids.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import type { RequestHandler } from "express";
import type { KnownModel, ModelDirectory } from "../models/model-directory.js";
import type { Audit } from "./audit.js";
import { type Caller, modelsOf } from "./authenticate.js";

declare global {
  namespace Express {
    interface Locals {
      /** Behind `listsAs` and `readsAs` only: the caller, in the place of the owner whose data is read. */
      reader: Caller;
    }
  }
}

/**
 * For lists: `?owner=` lists the data of that owner instead of the caller's own, which needs the scope `inspect` (or
 * one of `scopes`) and is put on record. For keys without it there is no such parameter. Throws `bad_query`.
 */
export function listsAs(audit: Audit, scopes: readonly Scope[] = ["inspect"]): RequestHandler {
  return (request, response, next) => {
    const { caller } = response.locals;
    const { owner } = request.query;
    response.locals.reader = caller;
    if (owner !== undefined) {
      const held = scopes.filter((scope) => caller.scopes.has(scope));
      if (held.length === 0) {
        audit.refused(request, response, `no scope ${scopes.join(" or ")}`, caller.owner);
        throw new ServiceError("bad_query", 'Unknown query parameter "owner".');
      }
      if (typeof owner !== "string" || !isOwnerName(owner)) {
        throw new ServiceError("bad_query", "owner must be the name of one owner.");
      }
      if (owner !== caller.owner) {
        response.locals.reader = inPlaceOf(caller, owner, held);
        audit.inspected(request, response, caller.owner, owner);
      }
    }
    next();
  };
}

/**
 * For one record by its id: a key with the scope `inspect` (or one of `scopes`) for its model reads that of any owner,
 * which is put on record. For all others it stays unknown unless it is their own.
 */
export function readsAs(
  audit: Audit,
  directory: ModelDirectory,
  ownerOf: (id: string, model: KnownModel | null) => Promise<string | null>,
  scopes: readonly Scope[] = ["inspect"],
): RequestHandler {
  return (request, response, next) => {
    const { caller } = response.locals;
    response.locals.reader = caller;
    const held = scopes.filter((scope) => caller.scopes.has(scope));
    const id = String(request.params.id);
    const tag = tagOfId(id);
    if (held.length === 0 || tag === null) return next();
    const find = async () => {
      const model = await directory.findByTag(tag);
      const globs = modelsOf(caller, ...held);
      if (model !== null && globs !== null && !fitsGlob(model.name, globs)) return;
      const owner = await ownerOf(id, model);
      if (owner === null || owner === caller.owner) return;
      response.locals.reader = inPlaceOf(caller, owner, held);
      audit.inspected(request, response, caller.owner, owner);
    };
    find().then(() => next(), next);
  };
}

/** A caller in the place of another owner, for the models that these scopes of it are for. */
export function inPlaceOf(caller: Caller, owner: string, held: readonly Scope[]): Caller {
  const globs = modelsOf(caller, ...held);
  const { models: _, ...rest } = caller;
  if (globs === null) return { ...rest, owner };
  return { ...rest, owner, models: new Map([...caller.scopes].map((scope) => [scope, globs])) };
}
