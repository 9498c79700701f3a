/** What a key may do; `predict` includes `read`. */
export const scopes = ["read", "predict", "admin"] as const;
export type Scope = (typeof scopes)[number];

/** A key as it is configured: only the SHA-256 of it is known. The name is the owner of what it submits. */
export interface ApiKey {
  owner: string;
  sha256Hex: string;
  scopes: ReadonlySet<Scope>;
}

const ownerPattern = /^[A-Za-z0-9_.@-]{1,64}$/;
const sha256Pattern = /^[0-9a-f]{64}$/i;

/**
 * Reads `name:sha256hex[:scope+scope]`, separated by commas or lines; `#` begins a comment line. Throws an Error
 * that lists every bad entry by its position, never by its content.
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
    const named = scopeText === undefined ? ["predict"] : scopeText.split("+");
    const unknown = named.filter((scope) => !(scopes as readonly string[]).includes(scope));
    if (!ownerPattern.test(owner)) problems.push(`${variable} entry ${i + 1}: the name is not usable`);
    else if (!sha256Pattern.test(sha256Hex)) problems.push(`${variable} entry ${i + 1} (${owner}): no SHA-256 in hex`);
    else if (unknown.length > 0)
      problems.push(`${variable} entry ${i + 1} (${owner}): scopes are ${scopes.join(", ")}`);
    else if (rest.length > 0) problems.push(`${variable} entry ${i + 1} (${owner}): too many colons`);
    else {
      const granted = new Set(named as Scope[]);
      if (granted.has("predict")) granted.add("read");
      keys.push({ owner, sha256Hex: sha256Hex.toLowerCase(), scopes: granted });
    }
  });
  if (problems.length > 0) throw new Error(problems.join("; "));
  return keys;
}
