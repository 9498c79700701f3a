import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { apiSettings } from "@millrace/shared/config/api-config.js";
import { secretSettings } from "@millrace/shared/config/secret-files.js";
import { workerSettings } from "@millrace/shared/config/worker-config.js";
import { describe, expect, test } from "vitest";
import { metricRows, readTables } from "../support/markdown-tables.js";
import { root } from "../support/run/tools.js";

const pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].concat(
  readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
);
const read = (path: string): string => readFileSync(join(root, path), "utf8");
/** All pages but decisions, which describe the code of their date, so that their paths may no longer exist. */
const current = pages.filter((page) => !page.startsWith("docs/decisions/"));

/** All pages with tables for readers, those of folders too. */
const tabled = ["CHANGELOG.md", "bench/README.md", "models/training/README.md", ...pages];
/** A file, or the files of a folder with one of these endings, but nothing that is built. */
const filesOf = (path: string, endings: readonly string[]): string[] =>
  endings.some((ending) => path.endsWith(ending))
    ? [path]
    : readdirSync(join(root, path), { recursive: true, encoding: "utf8" })
        .filter((name) => endings.some((ending) => name.endsWith(ending)) && !/(^|\/)(dist|node_modules)\//.test(name))
        .map((name) => join(path, name));

/** The code of the services. */
const sources = ["api", "workers", "shared"].flatMap((name) => filesOf(name, [".ts"])).map(read);

/** The headings of a page, as GitHub names their anchors. */
const headingsOf = (page: string): string[] =>
  [...page.matchAll(/^#+ (.*)$/gm)].map(([, text = ""]) =>
    text
      .toLowerCase()
      .replaceAll(/[^\w\s-]/g, "")
      .replaceAll(" ", "-"),
  );

interface Panel {
  title: string;
  targets?: { expr: string }[];
  panels?: Panel[];
}

describe("the pages", () => {
  test.each(pages)("%s links to existing files", (page) => {
    const links = [...read(page).matchAll(/\]\(([^)\s#]+)(?:#[^)]*)?\)/g)].map(([, link]) => link as string);
    const inside = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(inside.filter((link) => !existsSync(join(root, dirname(page), link)))).toEqual([]);
  });

  test.each(pages)("%s links to existing headings", (page) => {
    const links = [...read(page).matchAll(/\]\(([^)\s#]*)#([^)\s]+)\)/g)].map(([, path, heading]) => ({
      path,
      heading,
    }));
    const lost = links.filter(({ heading = "", path = "" }) => {
      if (/^[a-z]+:/.test(path)) return false;
      const target = path === "" ? page : join(dirname(page), path);
      return !headingsOf(read(target)).includes(heading);
    });
    expect(lost).toEqual([]);
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

  test.each(tabled)("%s has tables that are drawn as tables", (page) => {
    expect(readTables(read(page)).faults).toEqual([]);
  });

  test("docs/operations.md has every metric of the code in its table, and no other, with unit and meaning", () => {
    const registered = new Set(sources.flatMap((source) => source.match(/(?<=")(?:ml|millrace)_\w+(?=")/g) ?? []));
    const rows = metricRows(read("docs/operations.md"));
    expect(registered.size).toBeGreaterThan(35);
    expect([...registered].filter((name) => name.startsWith("millrace_")).length).toBeGreaterThan(1);
    expect(rows.map(({ name }) => name).sort()).toEqual([...registered].sort());
    expect(rows.filter(({ from, tells, unit, use }) => [from, tells, unit, use].includes(""))).toEqual([]);
  });

  test("docs/operations.md tells of each metric which alerts and panels use it", () => {
    const alerts = read("deploy/chart/files/alerts.yml")
      .split("- alert: ")
      .slice(1)
      .map((rule) => ({ title: `\`${rule.split("\n", 1)[0]}\``, text: rule.slice(0, rule.indexOf("annotations:")) }));
    const panels = readdirSync(join(root, "deploy/chart/files/dashboards")).flatMap((name) =>
      (JSON.parse(read(`deploy/chart/files/dashboards/${name}`)) as { panels: Panel[] }).panels
        .flatMap((panel) => [panel, ...(panel.panels ?? [])])
        .map(({ targets = [], title }) => ({ title: `“${title}”`, text: targets.map(({ expr }) => expr).join("\n") })),
    );
    expect(alerts.length).toBeGreaterThan(20);
    expect(panels.length).toBeGreaterThan(20);
    for (const { name, use } of metricRows(read("docs/operations.md"))) {
      const isUsed = new RegExp(`\\b${name}(_bucket|_sum|_count)?\\b`);
      const users = [...alerts, ...panels].filter(({ text }) => isUsed.test(text)).map(({ title }) => title);
      expect(use.match(/`Millrace\w+`|“[^”]+”/g) ?? [], name).toEqual([...new Set(users)]);
      if (users.length === 0) expect(use).toMatch(/^by hand: /);
    }
  });

  test.each(current)("%s names existing alerts", (page) => {
    const named = [...read(page).matchAll(/`(Millrace[A-Z]\w+)`/g)].map(([, name]) => name as string);
    const rules = read("deploy/chart/files/alerts.yml");
    expect(named.filter((name) => !rules.includes(`- alert: ${name}\n`))).toEqual([]);
  });

  test("docs/symptoms.md has symptoms with place, command and remedy, and names what the code has", () => {
    const page = read("docs/symptoms.md");
    const { tables } = readTables(page);
    const rows = tables.flatMap(({ head, rows: all }) => {
      expect(head).toEqual(["Symptom", "Look at", "Command", "Remedy"]);
      return all;
    });
    expect(rows.length).toBeGreaterThanOrEqual(20);
    expect(rows.filter((cells) => cells.includes(""))).toEqual([]);
    const others = [".js", ".lua", ".yml", ".ts"];
    const code = ["api", "workers", "shared", "cli", "deploy", "docker-compose.yml"].flatMap((name) =>
      filesOf(name, others),
    );
    const text = code.map(read).join("\n");
    const inCode = [...page.matchAll(/`([^`]+)`/g)].flatMap(([, quoted = ""]) => quoted.match(/[\w.]+/g) ?? []);
    const names = inCode
      .flatMap((word) => word.split("."))
      .filter((word) => /^([a-z]+_[a-z_]+|[A-Z]+_[A-Z_]+)$/.test(word));
    expect(new Set(names).size).toBeGreaterThan(50);
    expect([...new Set(names)].filter((name) => !text.includes(name))).toEqual([]);
    const said = [...page.matchAll(/“([^”]+)”/g)].map(([, words = ""]) => words.replace(/ …$/, ""));
    expect(said.length).toBeGreaterThan(8);
    expect(said.filter((words) => !text.includes(words))).toEqual([]);
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
    const compose = read("docs/deployment.md");
    const others = named.filter((name) => !settings.includes(`\`${name}\``));
    expect(others.filter((name) => !compose.includes(`\`${name}\``))).toEqual([]);
  });
});
