import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { root } from "./tools.js";

/** The files of this repository that a file imports, statically or dynamically, as paths from the root. */
export function importsOf(path: string): string[] {
  const text = readFileSync(join(root, path), "utf8");
  return [...text.matchAll(/(?:from|import\() ?"((?:\.|@millrace\/)[^"]+)"/g)].map(([, from]) =>
    (from as string).startsWith("@millrace/")
      ? (from as string).slice("@millrace/".length)
      : normalize(join(dirname(path), from as string)),
  );
}
