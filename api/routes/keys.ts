import { isOwnerName, readGrants, scopeNames } from "@millrace/shared/access/api-keys.js";
import {
  listKeys,
  type MadeKey,
  makeKey,
  readKey,
  revokeKey,
  rotateKey,
  type StoredKey,
} from "@millrace/shared/access/key-store.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type RequestHandler, Router } from "express";
import { z } from "zod";
import type { Audit } from "../access/audit.js";
import type { Caller } from "../access/authenticate.js";
import { assertMayGrant } from "../access/key-grants.js";
import type { keySchema } from "../access/key-schema.js";
import type { JsonLimits } from "../http/check-json.js";
import { acceptsJson, onlyQuery } from "../http/http-preferences.js";
import { optionalJsonBody, parseBody } from "../http/read-json.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";

const yearMs = 366 * 86_400_000;
const dayMs = 86_400_000;

/** Properties of a new key. */
export const newKeySchema = z
  .strictObject({
    owner: z.string().refine(isOwnerName, "must be 1 to 64 letters, digits, '_', '.', '@' or '-'"),
    scopes: z
      .array(z.string())
      .max(100)
      .refine((texts) => readGrants(texts) !== null, `are ${scopeNames}, each alone or as scope@model`)
      .default(["predict"]),
    expires_in_ms: z
      .int()
      .min(1)
      .max(10 * yearMs)
      .optional(),
  })
  .meta({ id: "NewKey" });

/** Time for which the old key stays valid beside the new one. */
export const rotationSchema = z
  .strictObject({ overlap_ms: z.int().min(0).max(yearMs).default(dayMs) })
  .meta({ id: "Rotation" });

/**
 * `/admin/keys`: keys in Redis, made, listed, rotated and revoked. A key is shown by the answer that makes it, only.
 */
export function keyRoutes(
  deps: JsonLimits & {
    redis: RedisClient;
    keyPrefix: string;
    clock: Clock;
    audit: Audit;
    maySeeKeys: RequestHandler;
    mayOperate: RequestHandler;
  },
): Router {
  const router = Router();
  const { audit, clock, keyPrefix, redis } = deps;
  const readBody = optionalJsonBody(deps);
  const unknown = () => new ServiceError("not_found", "There is no such key.");
  /** The owner of a key that the caller may rotate and revoke. Throws `forbidden` and `not_found`. */
  const assertMayChange = async (caller: Caller, id: string): Promise<string | null> => {
    const stored = await readKey(redis, keyPrefix, id);
    // A later release's record cannot be read here, but an admin can end it.
    if (stored === null && !caller.scopes.has("admin")) throw unknown();
    assertMayGrant(caller, stored?.grants ?? []);
    return stored?.owner ?? null;
  };
  const told = ({ key, stored }: MadeKey) => JSON.stringify({ ...describeKey(stored), key });

  resource(router, "/admin/keys", {
    get: [
      deps.maySeeKeys,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        const data = (await listKeys(redis, keyPrefix)).map(describeKey);
        sendJson(response, 200, JSON.stringify({ data }));
      },
    ],
    post: [
      deps.mayOperate,
      acceptsJson,
      readBody,
      async (request, response) => {
        onlyQuery(request);
        const { expires_in_ms: expiresInMs, owner, scopes } = parseBody(newKeySchema, request.body ?? {});
        assertMayGrant(response.locals.caller, scopes);
        const nowMs = clock.now();
        const expiresAt = expiresInMs === undefined ? null : nowMs + expiresInMs;
        const made = await makeKey(redis, keyPrefix, { owner, grants: scopes, nowMs, expiresAt });
        audit.key("key made", response, { key_id: made.stored.id, for: owner, scopes });
        sendJson(response, 201, told(made));
      },
    ],
  });
  resource(router, "/admin/keys/:key/rotate", {
    post: [
      deps.mayOperate,
      acceptsJson,
      readBody,
      async (request, response) => {
        onlyQuery(request);
        const { overlap_ms: overlapMs } = parseBody(rotationSchema, request.body ?? {});
        const id = request.params.key;
        await assertMayChange(response.locals.caller, id);
        const made = await rotateKey(redis, keyPrefix, id, { nowMs: clock.now(), overlapMs });
        if (made === null) throw unknown();
        const { id: newId, owner } = made.stored;
        audit.key("key rotated", response, { key_id: id, new_key_id: newId, for: owner });
        sendJson(response, 201, told(made));
      },
    ],
  });
  resource(router, "/admin/keys/:key/revoke", {
    post: [
      deps.mayOperate,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request);
        const id = request.params.key;
        const owner = await assertMayChange(response.locals.caller, id);
        if (!(await revokeKey(redis, keyPrefix, id))) throw unknown();
        audit.key("key revoked", response, { key_id: id, for: owner });
        sendJson(response, 200, JSON.stringify({ id, object: "key", revoked: true }));
      },
    ],
  });
  return router;
}

const time = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

function describeKey(key: StoredKey): z.infer<typeof keySchema> {
  return {
    id: key.id,
    object: "key",
    owner: key.owner,
    scopes: [...key.grants],
    created_at: new Date(key.createdAt).toISOString(),
    expires_at: time(key.expiresAt),
    last_used_at: time(key.lastUsedAt),
  };
}
