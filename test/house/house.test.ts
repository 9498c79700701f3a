import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { importsOf } from "../support/run/imports.js";
import { root } from "../support/run/tools.js";

const packages = ["shared", "api", "workers", "cli", "bench"];
const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { cwd: root })
  .toString()
  .split("\n")
  .filter((path) => path !== "" && existsSync(join(root, path)));
const read = (path: string): string => readFileSync(join(root, path), "utf8");
/** Code of this release; that of earlier ones, in fixtures, is never changed. */
const isCode = (path: string): boolean => /\.(ts|js|lua)$/.test(path) && !path.startsWith("test/fixtures/releases/");

describe("the house", () => {
  test("has at most 20 files in a folder", () => {
    const counts = new Map<string, number>();
    for (const path of files) counts.set(dirname(path), (counts.get(dirname(path)) ?? 0) + 1);
    expect([...counts].filter(([, count]) => count > 20)).toEqual([]);
  });

  test("has no folder more than two below a package", () => {
    const code = files.filter((path) => isCode(path) && packages.includes(path.split("/")[0] as string));
    expect(code.filter((path) => dirname(path).split("/").length > 3)).toEqual([]);
  });

  test("has no source file of more than 300 lines, except tests", () => {
    const code = files.filter((path) => isCode(path) && !path.startsWith("test/"));
    expect(code.filter((path) => read(path).split("\n").length > 301)).toEqual([]);
  });

  test("has no line of code of more than 120 columns", () => {
    const wide = files.filter(isCode).flatMap((path) =>
      read(path)
        .split("\n")
        .flatMap((line, i) => (line.length > 120 ? [`${path}:${i + 1}`] : [])),
    );
    expect(wide).toEqual([]);
  });

  test("has no line of prose of more than 120 columns, except tables, code and lines of one link", () => {
    const pages = files.filter((path) => (path.endsWith(".md") && path !== "CHANGELOG.md") || path === ".env.example");
    const wide = pages.flatMap((path) =>
      read(path)
        // Blanks what is excepted, so that the lines keep their numbers.
        .replaceAll(/^```[\s\S]*?^```/gm, (code) => code.replaceAll(/[^\n]/g, ""))
        .split("\n")
        .flatMap((line, i) => (line.length > 120 && !/^\||^\S*\]\(\S+$/.test(line) ? [`${path}:${i + 1}`] : [])),
    );
    expect(pages.length).toBeGreaterThan(20);
    expect(wide).toEqual([]);
  });

  test("reads the clock of the machine only in the measure of the store's clock", () => {
    // Other times are the store's (`StoreClock`) or, between two moments of a process, those of `performance.now()`.
    const mayRead = ["shared/redis/store-clock.ts"];
    const reads = /\bDate\.now\b|\bnew Date\(\s*\)|(?<![\w.]|new )Date\(\s*\)/;
    const code = files.filter(
      (path) => isCode(path) && ["shared", "api", "workers", "cli"].includes(path.split("/")[0] as string),
    );
    expect(code.length).toBeGreaterThan(200);
    expect(code.filter((path) => reads.test(read(path)))).toEqual(mayRead);
  });

  test("has no two folders that import each other, directly or through others", () => {
    const imports = new Map<string, Set<string>>();
    for (const path of files.filter(
      (path) => path.endsWith(".ts") && packages.includes(path.split("/")[0] as string),
    )) {
      const targets = imports.get(dirname(path)) ?? new Set();
      for (const target of importsOf(path)) if (dirname(target) !== dirname(path)) targets.add(dirname(target));
      imports.set(dirname(path), targets);
    }
    const reachedFrom = (folder: string): Set<string> => {
      const reached = new Set<string>();
      const open = [folder];
      for (let next = open.pop(); next !== undefined; next = open.pop()) {
        for (const target of imports.get(next) ?? []) {
          if (reached.has(target)) continue;
          reached.add(target);
          open.push(target);
        }
      }
      return reached;
    };
    expect(imports.size).toBeGreaterThan(20);
    expect([...imports.keys()].filter((folder) => reachedFrom(folder).has(folder))).toEqual([]);
  });
});
