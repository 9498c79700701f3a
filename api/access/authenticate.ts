import type { Scope } from "@millrace/shared/access/api-keys.js";
import { tagOfId } from "@millrace/shared/redis/ids.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import type { Request, RequestHandler, Response } from "express";
import { quote } from "../http/quote.js";
import type { ModelDirectory } from "../models/model-directory.js";
import type { Audit } from "./audit.js";
import type { Caller, KeyRing } from "./key-ring.js";
import type { RateLimits } from "./rate-limits.js";

declare global {
  namespace Express {
    interface Locals {
      /** Behind `requireScope` only. */
      caller: Caller;
    }
  }
}

export type { Caller } from "./key-ring.js";

export interface AuthDependencies {
  keyRing: KeyRing;
  directory: ModelDirectory;
  audit: Audit;
  /** Null: nothing is limited. */
  limits: RateLimits | null;
}

/** Paths that name no model and leave out by themselves what a key may not see. */
const listPaths = new Set([
  "/v1/models",
  "/v1/predictions",
  "/v1/batches",
  "/v1/failures",
  "/v1/failures/redrive",
  "/v1/failures/redrives",
]);

/**
 * Lets callers pass who have one of the scopes, as `response.locals.caller`: a key by `Authorization: Bearer`,
 * `X-API-Key` or, for browsers, HTTP Basic with the key as password. Refused keys, acts of operators and, by setting,
 * reads are put on record.
 */
export function requireScope(wanted: Scope | readonly Scope[], deps: AuthDependencies): RequestHandler {
  const { audit, limits } = deps;
  const scopes = typeof wanted === "string" ? [wanted] : wanted;
  const named = scopes.join(" or ");
  const reads = scopes.includes("read");
  const record = (request: Request, response: Response) => {
    const { owner } = response.locals.caller;
    if (reads) audit.read(request, response, owner);
    else if (!scopes.includes("predict")) audit.admin(request, response, owner);
  };
  return (request, response, next) => {
    const presented = presentedKey(request);
    const caller = knownCaller(deps, request, response, presented);
    if (caller === null) {
      const fault = new ServiceError("unauthenticated", "Send a key as Authorization: Bearer KEY or X-API-Key: KEY.");
      if (presented === null) throw fault;
      if (limits === null) throw fault;
      limits.failed(addressOf(request)).then(() => next(fault), next);
      return;
    }
    if (!scopes.some((scope) => caller.scopes.has(scope))) {
      audit.refused(request, response, `no scope ${named}`, caller.owner);
      throw new ServiceError("forbidden", `The key lacks the scope ${named}.`);
    }
    response.locals.caller = caller;
    const globs = modelsOf(caller, ...scopes);
    if (limits === null && globs === null) {
      record(request, response);
      next();
    } else {
      passSlowly(deps, named, globs, request, response).then(() => {
        record(request, response);
        next();
      }, next);
    }
  };
}

/**
 * For paths that need no key, and tell more to one that has the scope: sets `response.locals.caller` for it. A key that
 * is unknown is counted and put on record as everywhere, so that no path is an oracle for keys.
 */
export function mayHaveScope(scope: Scope, deps: AuthDependencies): RequestHandler {
  return (request, response, next) => {
    const presented = presentedKey(request);
    if (presented === null) return next();
    const caller = knownCaller(deps, request, response, presented);
    if (caller?.scopes.has(scope)) response.locals.caller = caller;
    if (caller !== null || deps.limits === null) next();
    else deps.limits.failed(addressOf(request)).then(() => next(), next);
  };
}

/** The caller of a key, or null, which is put on record where there was a key. Throws `rate_limited`. */
function knownCaller(
  { audit, keyRing, limits }: AuthDependencies,
  request: Request,
  response: Response,
  presented: string | null,
): Caller | null {
  const caller = presented === null ? null : keyRing.find(presented);
  if (limits !== null && presented !== null) limits.admit(addressOf(request), caller);
  if (caller === null && presented !== null) audit.refused(request, response, "unknown key");
  return caller;
}

/** The models that a caller may do something with, by any of these scopes that it has; null: all. */
export function modelsOf(caller: Caller, ...scopes: readonly Scope[]): readonly string[] | null {
  const held = scopes.filter((scope) => caller.scopes.has(scope));
  if (held.some((scope) => caller.models?.has(scope) !== true)) return null;
  return held.flatMap((scope) => caller.models?.get(scope) ?? []);
}

async function passSlowly(
  { audit, directory, limits }: AuthDependencies,
  named: string,
  globs: readonly string[] | null,
  request: Request,
  response: Response,
): Promise<void> {
  const caller = response.locals.caller;
  if (limits !== null) await limits.request(caller, response);
  if (globs !== null && !(await isWithin(globs, request, directory))) {
    audit.refused(request, response, `scope ${named} is for other models`, caller.owner);
    throw new ServiceError("forbidden", `The scope ${named} of the key ${uncovered(request)}.`);
  }
}

/** The end of a sentence about a scope that is bound to other models. */
function uncovered({ params: { id, model } }: Request): string {
  if (typeof model === "string") return `does not cover the model ${quote(model)}`;
  if (typeof id === "string") return "does not cover the model of this id";
  return "is bound to models, and this path needs it for all";
}

/** Whether the request is about a model that fits; a path that names none is for keys that are not bound. */
async function isWithin(globs: readonly string[], request: Request, directory: ModelDirectory): Promise<boolean> {
  const { id, model } = request.params;
  if (typeof model === "string") return fitsGlob(model, globs);
  if (typeof id === "string") {
    const tag = tagOfId(id);
    const known = tag === null ? null : await directory.findByTag(tag);
    // What is no id of anything is told so further on.
    return known === null || fitsGlob(known.name, globs);
  }
  return request.route === undefined ? request.baseUrl === "" : listPaths.has(request.route.path);
}

/** The caller's address. A /64 network of IPv6 counts as one, because its user has all of its addresses. */
function addressOf(request: Request): string {
  const address = request.ip ?? "";
  if (!address.includes(":") || address.startsWith("::ffff:")) return address;
  const [head = "", tail = ""] = address.split("::");
  const groups = head.split(":").filter(Boolean);
  const rest = tail.split(":").filter(Boolean);
  const filled = [...groups, ...Array(Math.max(0, 8 - groups.length - rest.length)).fill("0"), ...rest];
  return filled.slice(0, 4).join(":");
}

function presentedKey(request: Request): string | null {
  const { authorization } = request.headers;
  if (authorization !== undefined) {
    const space = authorization.indexOf(" ");
    const scheme = authorization.slice(0, space).toLowerCase();
    const rest = authorization.slice(space + 1).trim();
    if (scheme === "bearer") return rest;
    if (scheme === "basic") {
      const decoded = Buffer.from(rest, "base64").toString();
      return decoded.slice(decoded.indexOf(":") + 1);
    }
    return null;
  }
  const header = request.headers["x-api-key"];
  return typeof header === "string" ? header : null;
}
