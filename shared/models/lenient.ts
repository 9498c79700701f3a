import { z } from "zod";

type Issue = z.core.$ZodIssue;

/**
 * The schema without its refusal of unknown fields: for data of other releases, not for input of people.
 */
export function lenient<S extends z.ZodType>(schema: S) {
  return z.unknown().transform((value, context): z.output<S> => {
    const known = structuredClone(value);
    for (;;) {
      const parsed = schema.safeParse(known);
      if (parsed.success) return parsed.data;
      const strange = parsed.error.issues.flatMap((issue) => unknownFields(issue, []));
      if (strange.length === 0) {
        for (const { message, path } of parsed.error.issues) context.addIssue({ code: "custom", message, path });
        return z.NEVER;
      }
      for (const path of strange) remove(known, path);
    }
  });
}

/** Paths of unknown fields; in a union, of the option without any other fault. */
function unknownFields(issue: Issue, above: readonly PropertyKey[]): PropertyKey[][] {
  const path = [...above, ...issue.path];
  if (issue.code === "unrecognized_keys") return issue.keys.map((key) => [...path, key]);
  if (issue.code !== "invalid_union") return [];
  const choice = issue.errors.find((issues) => issues.every(({ code }) => code === "unrecognized_keys"));
  return (choice ?? []).flatMap((inner) => unknownFields(inner, path));
}

function remove(from: unknown, path: readonly PropertyKey[]): void {
  let holder = from as Record<PropertyKey, unknown>;
  for (const step of path.slice(0, -1)) holder = holder[step] as Record<PropertyKey, unknown>;
  delete holder[path.at(-1) as PropertyKey];
}
