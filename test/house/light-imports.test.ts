import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { root } from "../support/run/tools.js";

/**
 * The packages that a compiled file loads, and the files of this repository that it loads on the way. It does not see
 * imports of types, as `importsOf` does, because they are gone by then.
 */
function loadedBy(path: string, files = new Set<string>(), packages = new Set<string>()) {
  if (!files.has(path)) {
    files.add(path);
    for (const [, from = ""] of readFileSync(path, "utf8").matchAll(
      /^(?:import|export) (?:[\w*{},\s]+ from )?"([^"]+)"/gm,
    )) {
      const [, owner, rest = ""] = /^@millrace\/(\w+)\/(.+)$/.exec(from) ?? [];
      if (owner !== undefined) loadedBy(join(root, owner, "dist", rest), files, packages);
      else if (from.startsWith(".")) loadedBy(join(dirname(path), from), files, packages);
      else packages.add(from);
    }
  }
  return { files, packages };
}

test("the thread of heartbeats loads the client of Redis, and neither schemas nor the tables of all steps", () => {
  const { files, packages } = loadedBy(join(root, "workers/dist/monitoring/beat-thread.js"));
  expect(files.size).toBeGreaterThan(5);
  expect([...packages].filter((name) => !name.startsWith("node:"))).toEqual(["ioredis"]);
});
