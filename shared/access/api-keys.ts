/**
 * Scopes of a key: `read` its owner's data, `predict`, `inspect` every owner's data without changing anything,
 * `operate` the service (traffic, load, redrives, keys), `admin` both of the latter.
 */
export const scopes = ["read", "predict", "inspect", "operate", "admin"] as const;
export type Scope = (typeof scopes)[number];

/** The scopes that come with a scope, for the same models. */
const included: Readonly<Record<Scope, readonly Scope[]>> = {
  read: [],
  predict: ["read"],
  inspect: ["read"],
  operate: [],
  admin: ["inspect", "operate", "read"],
};

/** The names of the scopes, for messages. */
export const scopeNames = `${scopes.slice(0, -1).join(", ")} and ${scopes.at(-1)}`;

/** A configured key, of which only the SHA-256 is known. Its name is the owner of its submissions. */
export interface ApiKey {
  owner: string;
  sha256Hex: string;
  scopes: ReadonlySet<Scope>;
  /** Scopes bound to models, by globs of model names; absent where none is bound. */
  models?: ReadonlyMap<Scope, readonly string[]>;
}

/** The grants of a key as text: `scope`, or `scope@glob` for matching models. */
export type Grants = Pick<ApiKey, "scopes" | "models">;

const grantPattern = new RegExp(`^(${scopes.join("|")})(?:@([a-z0-9*][a-z0-9._*-]{0,63}))?$`);

const ownerPattern = /^[A-Za-z0-9_.@-]{1,64}$/;
const sha256Pattern = /^[0-9a-f]{64}$/i;

/**
 * Reads `name:sha256hex[:scope+scope]`, separated by commas or lines; `#` begins a comment line. Throws an Error
 * that lists every bad entry by its position and owner, never by more of its content.
 */
export function parseApiKeys(text: string, variable: string): ApiKey[] {
  const problems: string[] = [];
  const keys: ApiKey[] = [];
  const entries = text
    .split(/[,\n]/)
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "" && !entry.startsWith("#"));
  entries.forEach((entry, i) => {
    const [owner = "", sha256Hex = "", scopeText, ...rest] = entry.split(":");
    const grants = readGrants(scopeText === undefined ? ["predict"] : scopeText.split("+"));
    if (!ownerPattern.test(owner)) problems.push(`${variable} entry ${i + 1}: the name is not usable`);
    // Without a colon the text may be a key itself, which must not reach the log.
    else if (!entry.includes(":")) problems.push(`${variable} entry ${i + 1}: must be name:sha256hex[:scope+scope]`);
    else if (!sha256Pattern.test(sha256Hex)) problems.push(`${variable} entry ${i + 1} (${owner}): no SHA-256 in hex`);
    else if (grants === null)
      problems.push(`${variable} entry ${i + 1} (${owner}): scopes are ${scopeNames}, each alone or @ a model`);
    else if (rest.length > 0) problems.push(`${variable} entry ${i + 1} (${owner}): too many colons`);
    else keys.push({ owner, sha256Hex: sha256Hex.toLowerCase(), ...grants });
  });
  if (problems.length > 0) throw new Error(problems.join("; "));
  return keys;
}

/** Whether a text can be the name of a key, and so an owner. */
export const isOwnerName = (text: string): boolean => ownerPattern.test(text);

/** Reads grants; null where one is not valid. A scope granted for all models is not bound. */
export function readGrants(texts: readonly string[]): Grants | null {
  const granted = new Set<Scope>();
  const bound = new Map<Scope, string[]>();
  const free = new Set<Scope>();
  for (const text of texts) {
    const match = grantPattern.exec(text);
    if (match === null) return null;
    const [, named, glob] = match;
    for (const scope of [named as Scope, ...included[named as Scope]]) {
      granted.add(scope);
      if (glob === undefined) free.add(scope);
      else bound.set(scope, [...(bound.get(scope) ?? []), glob]);
    }
  }
  for (const scope of free) bound.delete(scope);
  return granted.size === 0 ? null : { scopes: granted, ...(bound.size > 0 && { models: bound }) };
}
