import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasTool, root, runTool } from "../support/run/tools.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const files = join(root, "deploy/chart/files");
const alerts = readFileSync(join(files, "alerts.yml"), "utf8");
const dashboards = readdirSync(join(files, "dashboards")).map((name) => ({
  name,
  text: readFileSync(join(files, "dashboards", name), "utf8"),
}));
const hasPromtool = hasTool("promtool", "--version");
const hasCompose = hasTool("docker", "compose", "version");

describe("dashboards and alerts", () => {
  const model = "intrusion-decision-tree";
  let stack: TestStack;
  const folder = mkdtempSync(join(tmpdir(), "millrace-panels-"));
  let scrapes: string[];
  let scraped: string;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
    await stack.predict(model, flow(1));
    const urls = [stack.url, `http://127.0.0.1:${stack.workers[0]?.port}`];
    scrapes = await Promise.all(urls.map(async (url) => (await fetch(`${url}/metrics`)).text()));
    scraped = scrapes.join("\n");
  });
  afterAll(async () => {
    rmSync(folder, { recursive: true });
    await stack.close();
  });

  test("query only metrics that the services export", () => {
    const known = new Set(
      [...scraped.matchAll(/^# TYPE (\S+) (\S+)/gm)].flatMap(([, name, type]) =>
        type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name as string],
      ),
    );
    const expressions = [alerts, ...dashboards.map(({ text }) => text)].join("\n");
    const asked = new Set(expressions.match(/\b(?:ml|process|nodejs)_[a-z_]+\b/g));
    expect(asked.size).toBeGreaterThan(20);
    expect([...asked].filter((name) => !known.has(name))).toEqual([]);
  });

  test("show no owner", () => {
    for (const text of [alerts, ...dashboards.map((dashboard) => dashboard.text)]) expect(text).not.toMatch(/\bowner=/);
    expect(scraped).not.toMatch(/owner="/);
  });

  test("cover what operators need, each panel with a question and each alert with a runbook section", () => {
    const panels = dashboards.flatMap(({ name, text }) => {
      const dashboard = JSON.parse(text);
      expect([name, dashboard.uid]).toEqual([name, `millrace-${name.replace(".json", "")}`]);
      return dashboard.panels.filter(({ type }: { type: string }) => type !== "row");
    });
    for (const { targets, title } of panels)
      expect([title, targets[0].expr]).toEqual([title, expect.stringMatching(/\w/)]);
    const runbook = readFileSync(join(root, "docs/operations.md"), "utf8");
    const names = [...alerts.matchAll(/alert: (\w+)/g)].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name) => !runbook.includes(`\`${name}\``))).toEqual([]);
    const tests = readFileSync(join(files, "alerts.test.yml"), "utf8");
    expect(names.filter((name) => !new RegExp(`alertname: ${name}\\n\\s+exp_alerts:\\n`).test(tests))).toEqual([]);
  });

  test.skipIf(!hasPromtool)("pass promtool: metric names and help, rules, and the rules' own tests", () => {
    for (const scrape of scrapes) {
      // Node's own metrics are named by prom-client, and some of them fail the check.
      const own = scrape.split("\n").filter((line) => /^(# \w+ )?ml_/.test(line));
      runTool("promtool", ["check", "metrics"], `${own.join("\n")}\n`);
    }
    runTool("promtool", ["check", "rules", join(files, "alerts.yml")]);
    runTool("promtool", ["test", "rules", join(files, "alerts.test.yml")]);
    for (const { name, text } of dashboards) {
      // Wrapped as rules, since promtool reads no bare expressions, with values for Grafana's variables.
      const expressions = [...text.matchAll(/"expr": ("(?:[^"\\]|\\.)*")/g)].map(([, json]) =>
        (JSON.parse(json as string) as string).replaceAll("$__rate_interval", "1m").replaceAll("$model", ".*"),
      );
      const rules = expressions.map((expr, i) => ({ record: `panel:${i}`, expr }));
      const file = join(folder, name);
      writeFileSync(file, JSON.stringify({ groups: [{ name, rules }] }));
      expect(runTool("promtool", ["check", "rules", file])).toContain("SUCCESS");
    }
  });
});

describe("compose", () => {
  const compose = readFileSync(join(root, "docker-compose.yml"), "utf8");

  test("passes on every setting of .env.example", () => {
    const example = readFileSync(join(root, ".env.example"), "utf8");
    const named = [...example.matchAll(/^#?([A-Z_]+)=/gm)].map(([, name]) => name as string);
    expect(named.length).toBeGreaterThan(20);
    // Settings that docker-compose.yml derives from others, that only the file beside it reads, or that only processes
    // outside compose use.
    const others = ["REDIS_URL", "PORT", "HOST", "MODELS_DIR", "WORKER_PORT", "MODELS_FOLDER"];
    others.push("REDIS_URL_FILE", "WEBHOOK_SECRET_FILE");
    expect(named.filter((name) => !compose.includes(`\${${name}:`) && !others.includes(name))).toEqual([]);
  });

  test.skipIf(!hasCompose)("is valid, with and without the optional profile and files", () => {
    const env = { REDIS_PASSWORD: "secret", API_KEYS: "a:0" };
    const [plain, observed] = [[], ["--profile", "observe"]].map(
      (more) =>
        JSON.parse(
          runTool("docker", ["compose", "--env-file", "/dev/null", ...more, "config", "--format", "json"], "", env),
        ).services,
    );
    expect(Object.keys(plain).sort()).toEqual(["api", "proxy", "redis", "worker"]);
    expect(Object.keys(observed).sort()).toEqual(["api", "grafana", "prometheus", "proxy", "redis", "worker"]);
    for (const service of Object.values(observed) as Record<string, unknown>[]) {
      expect(service).toMatchObject({ read_only: true, cap_drop: ["ALL"], restart: "unless-stopped" });
    }
    expect(() =>
      runTool("docker", ["compose", "--env-file", "/dev/null", "config"], "", { REDIS_PASSWORD: "" }),
    ).toThrow(/REDIS_PASSWORD/);
    const mounted = ["-f", "docker-compose.yml", "-f", "deploy/compose/mounted-models.yaml"];
    const { worker } = JSON.parse(
      runTool("docker", ["compose", "--env-file", "/dev/null", ...mounted, "config", "--format", "json"], "", env),
    ).services;
    expect(worker.build.args.MODELS).toBe("mounted");
    expect(worker.volumes).toMatchObject([{ target: "/models", read_only: true }]);
  });
});
