import { hash, timingSafeEqual } from "node:crypto";
import type { ApiKey, Scope } from "@millrace/shared/api-keys.js";
import { ServiceError } from "@millrace/shared/errors.js";
import type { Request, RequestHandler } from "express";
import type { Audit } from "./audit.js";

/** Who calls: the key's name is the owner of all that it submits, and of nothing else. */
export interface Caller {
  owner: string;
  scopes: ReadonlySet<Scope>;
}

/** Finds out who calls by `Authorization: Bearer`, `X-API-Key` or, for browsers, HTTP Basic with the key as password. */
export function authenticator(keys: readonly ApiKey[]): (request: Request) => Caller | null {
  const known = keys.map((key) => ({
    digest: Buffer.from(key.sha256Hex, "hex"),
    caller: { owner: key.owner, scopes: key.scopes },
  }));
  return (request) => {
    const presented = presentedKey(request);
    if (presented === null) return null;
    const digest = Buffer.from(hash("sha256", presented, "base64"), "base64");
    let caller: Caller | null = null;
    // All of them, each in constant time, so that the answer's time tells nothing of how close a guess was.
    for (const key of known) if (timingSafeEqual(key.digest, digest)) caller = key.caller;
    return caller;
  };
}

/** Lets callers with the scope pass, as `response.locals.caller`; refused keys and admin acts are put on record. */
export function requireScope(
  scope: Scope,
  authenticate: (request: Request) => Caller | null,
  audit: Audit,
): RequestHandler {
  return (request, response, next) => {
    const caller = authenticate(request);
    if (caller === null) {
      if (presentedKey(request) !== null) audit.refused(request, response, "unknown key");
      throw new ServiceError("unauthenticated", "send a key as Authorization: Bearer KEY or X-API-Key: KEY");
    }
    if (!caller.scopes.has(scope)) {
      audit.refused(request, response, `no scope ${scope}`, caller.owner);
      throw new ServiceError("forbidden", `the key lacks the scope ${scope}`);
    }
    if (scope === "admin") audit.admin(request, response, caller.owner);
    response.locals.caller = caller;
    next();
  };
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
