import { exec, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { metricRows } from "../support/markdown-tables.js";
import { composeCommand, hasTool, root, runTool, toolsBuilt } from "../support/run/tools.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const files = join(root, "deploy/chart/files");
const alerts = readFileSync(join(files, "alerts.yml"), "utf8");
const dashboards = readdirSync(join(files, "dashboards")).map((name) => ({
  name,
  text: readFileSync(join(files, "dashboards", name), "utf8"),
}));
await toolsBuilt();
const hasPromtool = hasTool("promtool", "--version");
const compose2 = composeCommand();

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

  test("docs/operations.md tells of each metric which process has it, and its labels", () => {
    const [ofApi = "", ofWorker = ""] = scrapes;
    const rows = metricRows(readFileSync(join(root, "docs/operations.md"), "utf8"));
    const labelled = new Set<string>();
    for (const { from, labels, name } of rows) {
      const has = (text: string) => text.includes(`# TYPE ${name} `);
      expect([has(ofApi) && "API", has(ofWorker) && "worker"].filter(Boolean).join(", "), name).toBe(from);
      for (const [, found = ""] of scraped.matchAll(
        new RegExp(`^${name}(?:_bucket|_sum|_count)?(?:\\{(.*)\\})? `, "gm"),
      )) {
        const used = [...found.matchAll(/(\w+)="/g)]
          .map(([, label]) => label as string)
          .filter((label) => label !== "le");
        expect(used.sort(), name).toEqual([...labels].sort());
        labelled.add(name);
      }
    }
    // Some have a value only after a shadow, a misfit or the like.
    expect(labelled.size).toBeGreaterThan(30);
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

  test("the images' health check asks a service without Node, and fails where none answers", async () => {
    const check = (port: string | number) => spawnSync("bash", ["deploy/healthcheck", `${port}`], { cwd: root }).status;
    expect([check(new URL(stack.url).port), check(stack.workers[0]?.port as number), check("off")]).toEqual([0, 0, 0]);
    expect(check(1)).not.toBe(0);
    const { close, port } = await answering(503);
    expect((await promisify(exec)(`bash deploy/healthcheck ${port}`, { cwd: root }).catch((fault) => fault)).code).toBe(
      1,
    );
    await close();
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
    const names = [...alerts.matchAll(/alert: (\w+)/g)].map(([, name]) => name as string);
    expect(names.length).toBeGreaterThan(20);
    const sections = readFileSync(join(root, "docs/runbook.md"), "utf8").match(/(?<=^## )\w+$/gm);
    expect(sections).toEqual(names);
    const runbooks = [...alerts.matchAll(/runbook_url: https:\S+\/docs\/runbook\.md#(\w+)$/gm)].map(
      ([, anchor]) => anchor,
    );
    expect(runbooks).toEqual(names.map((name) => name.toLowerCase()));
    const tests = readFileSync(join(files, "alerts.test.yml"), "utf8");
    // Each is shown to fire, and to be silent again at a later time.
    for (const name of names) {
      const cases = tests.split(/^ {2}- name: /m).filter((part) => new RegExp(`alertname: ${name}\\n`).test(part));
      const silentAfter = cases.some((part) => {
        const fires = part.search(new RegExp(`alertname: ${name}\\n\\s+exp_alerts:\\n`));
        return fires >= 0 && part.slice(fires).includes(`alertname: ${name}, exp_alerts: [] }`);
      });
      expect([name, cases.length > 0]).toEqual([name, true]);
      expect([name, silentAfter]).toEqual([name, true]);
    }
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
  const folder = join(root, "deploy/compose");
  const extras = readdirSync(folder).filter((name) => name.endsWith(".yaml"));
  const compose = [join(root, "docker-compose.yml"), ...extras.map((name) => join(folder, name))]
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");

  /** The services as compose understands them, without a file of variables. */
  const services = (env: Record<string, string>, args: readonly string[] = []): Record<string, ComposeService> => {
    const [program, ...first] = compose2 as readonly [string, ...string[]];
    const config = [...first, "--env-file", "/dev/null", ...args, "config", "--format", "json"];
    // Variables of this machine's own must not decide.
    const none = Object.fromEntries(["REDIS_PASSWORD", "REDIS_PASSWORD_FILE", "API_KEYS"].map((name) => [name, ""]));
    return JSON.parse(runTool(program, config, "", { ...none, ...env })).services;
  };
  const withFiles = (...names: string[]) =>
    ["docker-compose.yml", ...names.map((name) => `deploy/compose/${name}`)].flatMap((name) => ["-f", name]);

  test("passes on every setting of .env.example", () => {
    const example = readFileSync(join(root, ".env.example"), "utf8");
    const named = [...example.matchAll(/^#?([A-Z_]+)=/gm)].map(([, name]) => name as string);
    expect(named.length).toBeGreaterThan(20);
    // Settings that docker-compose.yml derives from others, that only the file beside it reads, or that only processes
    // outside compose use.
    const others = ["REDIS_URL", "REDIS_URL_FILE", "PORT", "HOST", "MODELS_DIR", "WORKER_PORT"];
    others.push("WORKER_HOST", "METRICS_KEY_FILE");
    expect(named.filter((name) => !compose.includes(`\${${name}:`) && !others.includes(name))).toEqual([]);
  });

  test.skipIf(compose2 === null)("is valid, with and without the optional profile and files", () => {
    const env = { REDIS_PASSWORD: "secret", API_KEYS: "a:0" };
    const plain = services(env);
    const observed = services(env, ["--profile", "observe"]);
    expect(Object.keys(plain).sort()).toEqual(["api", "proxy", "redis", "worker"]);
    expect(Object.keys(observed).sort()).toEqual(["api", "grafana", "prometheus", "proxy", "redis", "worker"]);
    const { backup, "backup-bucket": bucket } = services(env, [...withFiles("backups.yaml"), "--profile", "bucket"]);
    for (const service of [...Object.values(observed), backup, bucket]) {
      expect(service).toMatchObject({ read_only: true, cap_drop: ["ALL"], restart: "unless-stopped" });
    }
    expect(() => services({})).toThrow(/redis.*limits\.pids/);
    const { worker } = services(env, withFiles("mounted-models.yaml"));
    expect(worker?.build.args.MODELS).toBe("mounted");
    expect(worker?.volumes).toMatchObject([{ target: "/models", read_only: true }]);
    const tls = { ...env, TLS_CERTIFICATE_FILE: "/etc/ssl/mine.pem" };
    expect(services(tls, withFiles("tls.yaml")).proxy?.ports).toMatchObject([{ target: 3443 }]);
    expect(() => services(env, withFiles("tls.yaml"))).toThrow(/TLS_CERTIFICATE_FILE/);
  });

  test.skipIf(compose2 === null)("takes every secret from a file, and then has it in no variable", () => {
    const files = { REDIS_PASSWORD_FILE: "/s/redis", API_KEYS_FILE: "/s/keys", WEBHOOK_SECRET_FILE: "/s/webhook" };
    const { api, backup, redis, worker } = services(files, withFiles("backups.yaml"));
    const named = (service: ComposeService | undefined) => service?.secrets.map(({ source }) => source).sort();
    expect(named(api)).toEqual(["api-keys", "redis-password", "webhook-secret"]);
    expect(named(worker)).toEqual(["redis-password", "webhook-secret"]);
    expect([named(redis), named(backup)]).toEqual([["redis-password"], ["redis-password"]]);
    for (const { environment } of [api, backup, redis, worker] as ComposeService[]) {
      for (const name of ["REDIS_PASSWORD", "API_KEYS", "WEBHOOK_SECRET"]) expect(environment[name] ?? "").toBe("");
      expect(environment.REDIS_URL ?? "").not.toContain("@");
    }
  });

  test.skipIf(compose2 === null)(
    "gives every service minutes to start on a slow machine, and starts no Node to look",
    () => {
      const seconds = (text: string) => {
        const [, minutes = "0", rest = "0"] = /^(?:(\d+)m)?(?:(\d+)s)?$/.exec(text) ?? [];
        return Number(minutes) * 60 + Number(rest);
      };
      const { api, proxy, redis, worker } = services({ REDIS_PASSWORD: "secret" });
      for (const { healthcheck } of [api, proxy, redis, worker] as ComposeService[]) {
        const { interval, retries, start_period: startPeriod = "0s" } = healthcheck;
        expect(seconds(startPeriod) + retries * seconds(interval)).toBeGreaterThanOrEqual(60);
        expect(JSON.stringify(healthcheck)).not.toContain("node");
      }
      for (const name of ["Dockerfile.api", "Dockerfile.worker"]) {
        const text = readFileSync(join(root, name), "utf8");
        expect(/^HEALTHCHECK .*--start-period=\d{3}s .*CMD (.*)$/m.exec(text)?.[1]).toMatch(
          /"healthcheck \$(WORKER_)?PORT"/,
        );
      }
    },
  );
});

/** A server that answers everything with one status. */
async function answering(status: number) {
  const server = createServer((_request, response) => response.writeHead(status).end()).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, close: () => new Promise((done) => server.close(done)) };
}

/** What the tests read of a service. */
interface ComposeService {
  environment: Record<string, string>;
  secrets: { source: string }[];
  ports: unknown[];
  volumes: unknown[];
  build: { args: Record<string, string> };
  healthcheck: { interval: string; retries: number; start_period?: string };
}
