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
/** All pages but decisions, which describe the code of their date, so that their paths may no longer exist. */
const current = pages.filter((page) => !page.startsWith("docs/decisions/"));

describe("the pages", () => {
  test.each(pages)("%s links to existing files", (page) => {
    const links = [...read(page).matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)].map(([, link]) => link as string);
    const inside = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(inside.filter((link) => !existsSync(join(root, dirname(page), link)))).toEqual([]);
  });

  test.each(current)("%s names existing source files", (page) => {
    const named = [...read(page).matchAll(/`((?:api|shared|workers|cli|test|bench|deploy|docs)\/[\w./-]+\.\w+)`/g)];
    expect(named.map(([, path]) => path as string).filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  test("docs/reliability.md names existing tests", () => {
    const named = [...read("docs/reliability.md").matchAll(/`([a-z]+\/[a-z-]+)`/g)].map(([, name]) => name as string);
    expect(named.length).toBeGreaterThan(20);
    expect(named.filter((name) => !existsSync(join(root, `test/${name}.test.ts`)))).toEqual([]);
  });

  test("docs/settings.md names every setting of .env.example, except those of the compose file alone", () => {
    const named = [...read(".env.example").matchAll(/^#?([A-Z_]+)=/gm)].map(([, name]) => name as string);
    expect(named.length).toBeGreaterThan(20);
    const settings = read("docs/settings.md");
    const composeOnly = ["REDIS_PASSWORD", "REDIS_MAXMEMORY", "PUBLISH", "MILLRACE_TAG", "MODELS_FOLDER"];
    const others = named.filter((name) => !settings.includes(`\`${name}\``));
    expect(others.filter((name) => !composeOnly.includes(name))).toEqual([]);
  });
});
