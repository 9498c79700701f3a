import { createHash, randomBytes } from "node:crypto";
import { z } from "zod";
import type { RedisClient } from "../redis/connect-redis.js";
import { apiKeysKey, apiKeyUsesKey, keyChangesChannel } from "../redis/keys.js";
import { type ApiKey, isOwnerName, readGrants, scopeNames } from "./api-keys.js";

/** A key's record in Redis, without the key itself. While `v` is 1, only optional fields are added. */
const storedKeySchema = z.object({
  v: z.literal(1),
  owner: z.string().refine(isOwnerName),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  scopes: z.array(z.string()).refine((texts) => readGrants(texts) !== null),
  created_at: z.number(),
  expires_at: z.number().nullable(),
});

/** A key in Redis: its id, owner and expiry (ms since the epoch). */
export interface StoredKey extends ApiKey {
  id: string;
  /** The scopes as text. */
  grants: readonly string[];
  createdAt: number;
  expiresAt: number | null;
  /** Approximate time of its last use; null: never used. */
  lastUsedAt: number | null;
}

/** A new key. Its secret is returned only here. */
export interface MadeKey {
  key: string;
  stored: StoredKey;
}

/** Makes a key, with `nowMs` as its creation time, and notifies all APIs. Rejects for an invalid owner or scope. */
export async function makeKey(
  redis: RedisClient,
  prefix: string,
  {
    expiresAt = null,
    grants,
    nowMs,
    owner,
  }: { owner: string; grants: readonly string[]; nowMs: number; expiresAt?: number | null },
): Promise<MadeKey> {
  if (!isOwnerName(owner)) throw new Error("An owner has 1 to 64 letters, digits, '_', '.', '@' or '-'.");
  if (readGrants(grants) === null) throw new Error(`Scopes are ${scopeNames}, each alone or @ a model.`);
  const key = `mr_${randomBytes(24).toString("base64url")}`;
  const id = `key_${randomBytes(9).toString("base64url").replaceAll(/[-_]/g, "x")}`;
  const text = JSON.stringify({
    v: 1,
    owner,
    sha256: createHash("sha256").update(key).digest("hex"),
    scopes: grants,
    created_at: nowMs,
    expires_at: expiresAt,
  });
  await redis.hset(apiKeysKey(prefix), id, text);
  await redis.publish(keyChangesChannel(prefix), "");
  return { key, stored: decode(id, text, null) as StoredKey };
}

/** All keys in Redis, expired ones too, oldest first. */
export async function listKeys(redis: RedisClient, prefix: string): Promise<StoredKey[]> {
  const [texts, uses] = await Promise.all([redis.hgetall(apiKeysKey(prefix)), redis.hgetall(apiKeyUsesKey(prefix))]);
  return Object.entries(texts)
    .flatMap(([id, text]) => decode(id, text, uses[id] ?? null) ?? [])
    .sort((a, b) => a.createdAt - b.createdAt);
}

/** A key by its id; null where there is none. */
export async function readKey(redis: RedisClient, prefix: string, id: string): Promise<StoredKey | null> {
  const text = await redis.hget(apiKeysKey(prefix), id);
  return text === null ? null : decode(id, text, null);
}

/** Makes a key with the same grants; the old one expires `overlapMs` after `nowMs`. Null where there is no such key. */
export async function rotateKey(
  redis: RedisClient,
  prefix: string,
  id: string,
  { nowMs, overlapMs }: { nowMs: number; overlapMs: number },
): Promise<MadeKey | null> {
  const text = await redis.hget(apiKeysKey(prefix), id);
  const old = text === null ? null : decode(id, text, null);
  if (old === null || text === null) return null;
  const made = await makeKey(redis, prefix, { owner: old.owner, grants: old.grants, nowMs });
  const end = Math.min(old.expiresAt ?? Number.POSITIVE_INFINITY, nowMs + overlapMs);
  await redis.hset(apiKeysKey(prefix), id, JSON.stringify({ ...JSON.parse(text), expires_at: end }));
  await redis.publish(keyChangesChannel(prefix), "");
  return made;
}

/** Revokes a key at once, on every API; false where there is no such key. */
export async function revokeKey(redis: RedisClient, prefix: string, id: string): Promise<boolean> {
  const removed = await redis.hdel(apiKeysKey(prefix), id);
  await redis.hdel(apiKeyUsesKey(prefix), id);
  await redis.publish(keyChangesChannel(prefix), "");
  return removed > 0;
}

/** Writes the times of keys' last use, by id, in ms since the epoch. */
export async function noteUses(redis: RedisClient, prefix: string, uses: ReadonlyMap<string, number>): Promise<void> {
  if (uses.size > 0) await redis.hset(apiKeyUsesKey(prefix), Object.fromEntries(uses));
}

/** Null for a record that cannot be read, which is then no key. */
function decode(id: string, text: string, lastUsed: string | null): StoredKey | null {
  const parsed = storedKeySchema.safeParse(parseJson(text));
  if (!parsed.success) return null;
  const { created_at: createdAt, expires_at: expiresAt, owner, scopes: grants, sha256: sha256Hex } = parsed.data;
  const granted = readGrants(grants);
  if (granted === null) return null;
  return {
    id,
    owner,
    sha256Hex,
    grants,
    createdAt,
    expiresAt,
    lastUsedAt: lastUsed === null ? null : Number(lastUsed),
    ...granted,
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
