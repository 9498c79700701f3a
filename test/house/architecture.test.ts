import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { importsOf } from "../support/run/imports.js";
import { root } from "../support/run/tools.js";

const packages = ["api", "shared", "workers"];

/** The lines of a package in the picture of the rooms. */
function drawn(name: string): string {
  const page = readFileSync(join(root, "docs/architecture.md"), "utf8");
  const rooms = page.slice(page.indexOf("\n## The rooms\n"));
  return new RegExp(`subgraph ${name} .*\\n([\\s\\S]*?)\\n {2}end`).exec(rooms)?.[1] ?? "";
}

/** The arrows of a package in the picture, from room to room, by their names. */
function arrowsOf(name: string): string[] {
  const names = new Map([...drawn(name).matchAll(/(\w+)\[(\w+)\]/g)].map(([, id, text]) => [id, text] as const));
  const rooms = (list = "") => list.split("&").map((node) => node.trim().replace(/\[.*/, ""));
  return [...drawn(name).matchAll(/^ +(.+) --> (.+)$/gm)].flatMap(([, from, to]) =>
    rooms(from).flatMap((a) => rooms(to).map((b) => `${names.get(a) ?? a} --> ${names.get(b) ?? b}`)),
  );
}

/** The imports between the rooms of a package; a room is a folder of it, with its subfolders. */
function roomImports(name: string): Map<string, Set<string>> {
  const imports = new Map<string, Set<string>>();
  for (const path of readdirSync(join(root, name), { recursive: true, encoding: "utf8" })) {
    const [room, file] = path.split("/") as [string, string?];
    if (file === undefined || !path.endsWith(".ts") || room === "dist" || room === "node_modules") continue;
    const targets = imports.get(room) ?? new Set();
    imports.set(room, targets);
    for (const target of importsOf(join(name, path))) {
      const [owner, inner, inside] = target.split("/") as [string, string, string?];
      if (owner === name && inside !== undefined && inner !== room) targets.add(inner);
    }
  }
  return imports;
}

/** The edges of a graph without cycles that no longer path implies. */
function withoutImplied(imports: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  const reaches = (from: string, to: string): boolean =>
    [...(imports.get(from) ?? [])].some((next) => next === to || reaches(next, to));
  return [...imports].flatMap(([room, targets]) =>
    [...targets]
      .filter((target) => ![...targets].some((other) => other !== target && reaches(other, target)))
      .map((target) => `${room} --> ${target}`),
  );
}

describe("docs/architecture.md", () => {
  test.each(packages)("draws every room of %s, with the imports that no longer path implies", (name) => {
    const imports = roomImports(name);
    expect(imports.size).toBeGreaterThan(8);
    expect(arrowsOf(name).sort()).toEqual(withoutImplied(imports).sort());
    const connected = new Set(arrowsOf(name).flatMap((arrow) => arrow.split(" --> ")));
    expect([...imports.keys()].filter((room) => !connected.has(room))).toEqual([]);
  });

  test("gives no node to two packages, which Mermaid would draw as one", () => {
    const ids = packages.flatMap((name) => {
      const lines = drawn(name).replace("direction TB", "");
      return [...new Set(lines.replaceAll(/\[.*?\]/g, "").match(/\w+/g))];
    });
    expect(ids.length).toBeGreaterThan(25);
    expect(ids.filter((id, i) => ids.indexOf(id) !== i)).toEqual([]);
  });
});
