/**
 * JSON text of a value with the members of its objects in one order, at any depth. Arrays keep their order, and numbers
 * are as `JSON.parse` reads them.
 */
export const canonicalJson = (value: unknown): string => JSON.stringify(canonical(value));

/**
 * A value with the members of its objects in order; the value itself where they are in order already, which is usual.
 */
export const canonical = (value: unknown): unknown => (isCanonical(value) ? value : sorted(value));

function isCanonical(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true;
  if (Array.isArray(value)) {
    for (const element of value) if (typeof element === "object" && !isCanonical(element)) return false;
    return true;
  }
  const names = Object.keys(value);
  for (let i = 0; i < names.length; i++) {
    const name = names[i] as string;
    if (i > 0 && name < (names[i - 1] as string)) return false;
    if (!isCanonical((value as Record<string, unknown>)[name])) return false;
  }
  return true;
}

function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(members.map(([name, member]) => [name, sorted(member)]));
}
