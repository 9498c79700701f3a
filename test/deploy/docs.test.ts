import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { root } from "../support/run/tools.js";

const pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].concat(
  readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
);
const read = (path: string): string => readFileSync(join(root, path), "utf8");
/** Decisions tell of the day they were made on; their paths may be gone. */
const current = pages.filter((page) => !page.startsWith("docs/decisions/"));

describe("the pages", () => {
  test.each(pages)("%s links to files that are there", (page) => {
    const links = [...read(page).matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)].map(([, link]) => link as string);
    const inside = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(inside.filter((link) => !existsSync(join(root, dirname(page), link)))).toEqual([]);
  });

  test.each(current)("%s names files of the code that are there", (page) => {
    const named = [...read(page).matchAll(/`((?:api|shared|workers|cli|test|bench|deploy|docs)\/[\w./-]+\.\w+)`/g)];
    expect(named.map(([, path]) => path as string).filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  test("docs/reliability.md names tests that are there", () => {
    const named = [...read("docs/reliability.md").matchAll(/`([a-z]+\/[a-z-]+)`/g)].map(([, name]) => name as string);
    expect(named.length).toBeGreaterThan(20);
    expect(named.filter((name) => !existsSync(join(root, `test/${name}.test.ts`)))).toEqual([]);
  });

  test("docs/settings.md names every setting that .env.example does, but for those of the compose file alone", () => {
    const named = [...read(".env.example").matchAll(/^#?([A-Z_]+)=/gm)].map(([, name]) => name as string);
    expect(named.length).toBeGreaterThan(20);
    const settings = read("docs/settings.md");
    const composeOnly = ["REDIS_PASSWORD", "REDIS_MAXMEMORY", "PUBLISH", "MILLRACE_TAG", "MODELS_FOLDER"];
    const others = named.filter((name) => !settings.includes(`\`${name}\``));
    expect(others.filter((name) => !composeOnly.includes(name))).toEqual([]);
  });
});
