import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { apiSettings } from "@millrace/shared/config/api-config.js";
import { secretSettings } from "@millrace/shared/config/secret-files.js";
import { workerSettings } from "@millrace/shared/config/worker-config.js";
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

  test("docs/settings.md and .env.example name every variable that the services read", () => {
    const variables = [...Object.keys(apiSettings.shape), ...Object.keys(workerSettings.shape)].concat(
      secretSettings.map((name) => `${name}_FILE`),
    );
    expect(variables.length).toBeGreaterThan(40);
    const settings = read("docs/settings.md");
    expect(variables.filter((name) => !settings.includes(`\`${name}\``))).toEqual([]);
    const example = read(".env.example");
    expect(variables.filter((name) => !new RegExp(`^#?${name}=`, "m").test(example))).toEqual([]);
  });

  test("docs/operations.md has every metric of the code in its table, and no other", () => {
    const sources = ["api", "workers", "shared"].flatMap((name) =>
      readdirSync(join(root, name), { recursive: true, encoding: "utf8" })
        .filter((path) => path.endsWith(".ts") && !/(^|\/)(dist|node_modules)\//.test(path))
        .map((path) => read(join(name, path))),
    );
    const registered = new Set(sources.flatMap((source) => source.match(/(?<=")ml_\w+(?=")/g) ?? []));
    const rows = read("docs/operations.md").match(/^\| `ml_.*/gm) ?? [];
    const told = rows.flatMap((row) => row.match(/(?<=`)ml_\w+/g) ?? []);
    expect(registered.size).toBeGreaterThan(25);
    expect(told.sort()).toEqual([...registered].sort());
  });

  test("bench/README.md describes every scenario", () => {
    const scenarios = readdirSync(join(root, "bench/scenarios")).filter((name) => name.endsWith(".ts"));
    expect(scenarios.length).toBeGreaterThan(10);
    const described = read("bench/README.md");
    expect(scenarios.filter((name) => !described.includes(`\n| \`${name.replace(".ts", "")}\` |`))).toEqual([]);
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
