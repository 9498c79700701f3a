import { scopeNames } from "@millrace/shared/access/api-keys.js";
import {
  listKeys,
  type MadeKey,
  makeKey,
  revokeKey,
  rotateKey,
  type StoredKey,
} from "@millrace/shared/access/key-store.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { readStoreTime } from "@millrace/shared/redis/store-clock.js";
import { readArguments, UsageError } from "./read-arguments.js";
import { withRedis } from "./with-redis.js";

export const keysUsage = `  keys list
  keys make <owner> [--scopes predict+read@model-*] [--expires-days N]
                   scopes: ${scopeNames}
  keys rotate <id> [--overlap-hours N]     a new key with the same grants; the old one ends after N hours (24)
  keys revoke <id>                         end a key on all APIs at once
                   keys are kept in Redis (REDIS_URL, REDIS_KEY_PREFIX), only as hashes
`;

const hourMs = 3_600_000;
const options = {
  scopes: { type: "string" },
  "expires-days": { type: "string" },
  "overlap-hours": { type: "string" },
} as const;

/** Makes, lists, rotates or revokes keys in the Redis named by the environment. Resolves to the exit code. */
export async function runKeys(
  args: readonly string[],
  environment: Record<string, string | undefined>,
  say: (line: string) => void,
): Promise<number> {
  const { positionals, values } = readArguments(args, options);
  const [action, subject, ...rest] = positionals;
  const wantsSubject = action !== "list";
  if (rest.length > 0 || !["list", "make", "rotate", "revoke"].includes(action ?? "") || wantsSubject !== !!subject) {
    throw new UsageError("keys needs list, make <owner>, rotate <id> or revoke <id>");
  }
  return withRedis(environment, async (redis, prefix) => {
    const nowMs = await readStoreTime(redis, prefix);
    return act({ redis, prefix, nowMs }, action as string, subject ?? "", values, say);
  });
}

async function act(
  { nowMs, prefix, redis }: { redis: RedisClient; prefix: string; nowMs: number },
  action: string,
  subject: string,
  values: { scopes?: string | undefined; "expires-days"?: string | undefined; "overlap-hours"?: string | undefined },
  say: (line: string) => void,
): Promise<number> {
  if (action === "list") {
    for (const key of await listKeys(redis, prefix)) say(lineOf(key));
    return 0;
  }
  if (action === "make") {
    const days = values["expires-days"] === undefined ? null : positive("--expires-days", values["expires-days"]);
    const expiresAt = days === null ? null : nowMs + days * 24 * hourMs;
    const grants = (values.scopes ?? "predict").split("+");
    tell(await makeKey(redis, prefix, { owner: subject, grants, nowMs, expiresAt }));
    return 0;
  }
  if (action === "rotate") {
    const hours = positive("--overlap-hours", values["overlap-hours"] ?? "24");
    const made = await rotateKey(redis, prefix, subject, { nowMs, overlapMs: hours * hourMs });
    if (made === null) throw new Error(`no key ${subject}: see keys list`);
    tell(made);
    return 0;
  }
  if (!(await revokeKey(redis, prefix, subject))) throw new Error(`no key ${subject}: see keys list`);
  say(`${subject} is revoked.`);
  return 0;

  function tell({ key, stored }: MadeKey): void {
    say(lineOf(stored));
    say(key);
    say("The key is shown only this once.");
  }
}

function lineOf({ expiresAt, grants, id, lastUsedAt, owner }: StoredKey): string {
  const day = (ms: number | null, none: string) => (ms === null ? none : new Date(ms).toISOString());
  return `${id}  ${owner}  ${grants.join("+")}  expires ${day(expiresAt, "never")}  used ${day(lastUsedAt, "never")}`;
}

function positive(name: string, text: string): number {
  if (!/^\d{1,6}(\.\d+)?$/.test(text)) throw new Error(`${name} must be a number from 0 to 999999`);
  return Number(text);
}
