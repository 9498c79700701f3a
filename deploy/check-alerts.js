// deploy/check-alerts.js [exported | outages]: run by deploy/check-alerts, which says what it shows. First every alert
// on series that this process exports, bad and then good again; then those of outages on a real Redis, API and workers.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { freePort, openOwnStack, root } from "./own-stack.js";

const files = join(root, "deploy/chart/files");
/** A minute of the rules, in ms. */
const minuteMs = 1000;
const stack = openOwnStack();
const say = (line) => process.stdout.write(`${line}\n`);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
let failed = 0;

const rules = readFileSync(join(files, "alerts.yml"), "utf8")
  .replaceAll(/\[(\d+)([mh])\]/g, (_, n, unit) => `[${unit === "h" ? n * 60 : n}s]`)
  .replaceAll(/^( +for:) (\d+)m$/gm, "$1 $2s");
const names = [...rules.matchAll(/alert: (\w+)/g)].map(([, name]) => name);

/** Series of each alert: a number is a gauge, `n/s` a counter that grows so. */
const bad = {
  up: { 'ml_redis_up{x="1"}': 0 },
  api: { 'ml_http_responses_total{class="5xx"}': "30/s", 'ml_http_responses_total{class="2xx"}': "30/s" },
  latency: {
    'ml_prediction_latency_seconds_bucket{model="m",stage="total",le="10"}': "10/s",
    'ml_prediction_latency_seconds_bucket{model="m",stage="total",le="30"}': "50/s",
    'ml_prediction_latency_seconds_bucket{model="m",stage="total",le="+Inf"}': "50/s",
    'ml_prediction_latency_seconds_count{model="m",stage="total"}': "50/s",
  },
  failures: {
    'ml_failure_total{model="m",work="prediction",code="timeout"}': "30/s",
    'ml_failure_total{model="m",work="row",code="poisoned"}': "90/s",
    'ml_failure_total{model="m",work="prediction",code="inference_failed"}': "200/s",
    'ml_prediction_total{model="m",status="failed"}': "60/s",
    'ml_bulk_rows_total{model="m",status="failed"}': "90/s",
  },
  queue: {
    'ml_queue_depth{model="m",state="waiting"}': "10/s",
    'ml_workers_alive{model="m"}': 1,
    'ml_queue_depth{model="n",state="waiting"}': 5,
    'ml_workers_alive{model="n"}': 0,
    'ml_slots{state="busy"}': 0,
    'ml_slots{state="alive"}': 2,
    'ml_queue_oldest_age_seconds{model="m"}': 900,
    'ml_queue_limit_ratio{model="m",limit="jobs"}': 0.9,
    'ml_webhook_queue_depth{model="m",state="waiting"}': 5000,
  },
  models: {
    'ml_model_loaded{model="m",version="2"}': 0,
    'ml_joining_misfit_total{model="m",version="1"}': "1/s",
    ml_slot_death_total: "2/s",
    'ml_circuit_breaker_state{model="m",version="1"}': 2,
    'ml_webhook_attempt_total{event="batch.completed",outcome="given_up"}': "1/s",
    'ml_input_drift_psi{model="m",version="1",feature="f"}': 0.5,
    'ml_requests_shed_total{reason="overloaded"}': "5/s",
  },
  redis: {
    'ml_redis_memory_bytes{kind="used"}': 95,
    'ml_redis_memory_bytes{kind="max"}': 100,
    'ml_redis_persistence_ok{kind="aof_write"}': 0,
    'ml_redis_persistence_ok{kind="aof_rewrite"}': 0,
    'ml_redis_replica_lag{master="",unit="bytes"}': 2e8,
    'ml_redis_replicas{master=""}': 1,
    millrace_store_swapped: 1,
    millrace_clock_offset_seconds: -90,
  },
};
/** What the gauges are when all is well; counters stand still. */
const good = {
  ml_redis_up: 1,
  ml_queue_depth: 0,
  ml_workers_alive: 1,
  ml_slots: 2,
  ml_queue_oldest_age_seconds: 0,
  ml_queue_limit_ratio: 0.1,
  ml_webhook_queue_depth: 0,
  ml_model_loaded: 1,
  ml_circuit_breaker_state: 0,
  ml_input_drift_psi: 0.01,
  'ml_redis_memory_bytes{kind="used"}': 10,
  'ml_redis_memory_bytes{kind="max"}': 100,
  ml_redis_persistence_ok: 1,
  ml_redis_replica_lag: 0,
  ml_redis_replicas: 2,
  millrace_store_swapped: 0,
  millrace_clock_offset_seconds: 0.01,
};
const series = Object.assign({}, ...Object.values(bad));

/** Exports the series to Prometheus. `well` switches all of them. */
async function openExporter() {
  const counts = new Map();
  let last = Date.now();
  const state = { well: true, url: "", server: null };
  state.server = createServer((_request, response) => {
    const seconds = (Date.now() - last) / 1000;
    last = Date.now();
    const lines = Object.entries(series).map(([name, value]) => {
      const wellValue = good[name] ?? good[name.replace(/\{.*/, "")];
      const grows = typeof value === "string";
      if (grows && !state.well) counts.set(name, (counts.get(name) ?? 0) + Number.parseFloat(value) * seconds);
      if (grows && wellValue === undefined) return `${name} ${counts.get(name) ?? 0}`;
      return `${name} ${state.well ? wellValue : grows ? counts.get(name) : value}`;
    });
    response.writeHead(200, { "content-type": "text/plain" }).end(`${lines.join("\n")}\n`);
  }).listen(0, "127.0.0.1");
  await new Promise((done) => state.server.once("listening", done));
  state.url = `127.0.0.1:${state.server.address().port}`;
  return state;
}

/** A Prometheus on targets, `{ api: [host:port], worker: [host:port] }`, with the rules at a second a minute. */
async function startPrometheus(folder, targets) {
  const jobs = Object.entries(targets).map(([millrace, addresses]) => ({
    job_name: millrace,
    static_configs: [{ targets: addresses, labels: { millrace } }],
  }));
  const global = { scrape_interval: "500ms", scrape_timeout: "500ms", evaluation_interval: "500ms" };
  const config = join(stack.folder, `${folder}.yml`);
  writeFileSync(join(stack.folder, "alerts.yml"), rules);
  writeFileSync(config, JSON.stringify({ global, rule_files: ["alerts.yml"], scrape_configs: jobs }));
  const address = `127.0.0.1:${await freePort()}`;
  const child = stack.start("prometheus", [
    `--config.file=${config}`,
    `--storage.tsdb.path=${join(stack.folder, folder)}`,
    `--web.listen-address=${address}`,
    "--query.lookback-delta=5s",
    "--rules.alert.resend-delay=1s",
  ]);
  const ask = async (path) => (await fetch(`http://${address}/api/v1/${path}`)).json();
  for (let i = 0; ; i++) {
    if ((await ask("status/runtimeinfo").catch(() => null)) !== null) break;
    if (i > 300 || child.exitCode !== null) throw new Error("Prometheus did not start");
    await pause(100);
  }
  return {
    child,
    ask,
    async firing() {
      const { data } = await ask("alerts");
      return new Set(data.alerts.filter(({ state }) => state === "firing").map(({ labels }) => labels.alertname));
    },
  };
}

/** Waits for alerts to fire, or to resolve; says which did not. */
async function expectAlerts(prometheus, wanted, fire, what, withinMinutes = 120) {
  const begun = Date.now();
  let open = [...wanted];
  while (open.length > 0 && Date.now() - begun < withinMinutes * minuteMs) {
    const firing = await prometheus.firing();
    open = open.filter((name) => firing.has(name) !== fire);
    if (open.length > 0) await pause(200);
  }
  const seconds = ((Date.now() - begun) / 1000).toFixed(0);
  const verb = fire ? "fire" : "resolve";
  if (open.length === 0) say(`ok      ${what}: ${wanted.length} ${verb} within ${seconds} s`);
  else {
    failed++;
    say(`FAILED  ${what}: these do not ${verb}: ${open.join(", ")}`);
  }
}

async function expectSilence(prometheus, what) {
  const firing = [...(await prometheus.firing())];
  if (firing.length === 0) return say(`ok      ${what}: nothing fires`);
  failed++;
  say(`FAILED  ${what}: ${firing.join(", ")} fire`);
}

/** Panels whose value the machine or the traffic decides, which an idle stack has not. */
const needTraffic = /histogram_quantile|ml_input_drift_psi|ml_shadow|ml_prediction_confidence/;

async function checkPanels(prometheus) {
  const empty = [];
  let panels = 0;
  for (const name of readdirSync(join(files, "dashboards"))) {
    const dashboard = JSON.parse(readFileSync(join(files, "dashboards", name), "utf8"));
    for (const { targets = [], title } of dashboard.panels) {
      for (const { expr } of targets) {
        if (needTraffic.test(expr)) continue;
        panels++;
        const query = expr.replaceAll("$__rate_interval", "10s").replaceAll("$model", ".*");
        const { data } = await prometheus.ask(`query?query=${encodeURIComponent(query)}`);
        if (data.result.every(({ value }) => value[1] === "NaN")) empty.push(`${title}: ${expr}`);
      }
    }
  }
  if (empty.length === 0) return say(`ok      ${panels} queries of panels have a value before anything has failed`);
  failed++;
  for (const panel of empty) say(`FAILED  empty: ${panel}`);
}

/** Every alert, by exported series. */
async function byExporter() {
  const exporter = await openExporter();
  const prometheus = await startPrometheus("exported", { api: [exporter.url], worker: [] });
  const others = names.filter((name) => !["MillraceApiDown", "MillraceTargetDown", "MillraceNoMetrics"].includes(name));
  await pause(10 * minuteMs);
  await expectSilence(prometheus, "while all is well");
  exporter.well = false;
  await expectAlerts(prometheus, others, true, "while everything is wrong");
  exporter.well = true;
  await expectAlerts(prometheus, others, false, "when all is well again");
  exporter.server.close();
  exporter.server.closeAllConnections();
  const outage = ["MillraceApiDown", "MillraceTargetDown", "MillraceNoMetrics"];
  await expectAlerts(prometheus, outage, true, "when the target is gone");
  await stack.kill(prometheus);
}

/** Outages of real processes. */
async function byOutage() {
  const [served, other] = ["intrusion-decision-tree", "intrusion-xgboost"];
  const data = join(stack.folder, "redis");
  let redis = await stack.startRedis(data);
  const ports = { api: await freePort(), first: await freePort(), second: await freePort() };
  const startFirst = () =>
    stack.startService("worker", redis, { WORKER_MODELS: served, WORKER_PORT: `${ports.first}` });
  const startApi = () => stack.startService("api", redis, { PORT: `${ports.api}` });
  let first = await startFirst();
  const second = await stack.startService("worker", redis, { WORKER_MODELS: other, WORKER_PORT: `${ports.second}` });
  let api = await startApi();
  const target = (port) => `127.0.0.1:${port}`;
  const prometheus = await startPrometheus("outages", {
    api: [target(ports.api)],
    worker: [target(ports.first), target(ports.second)],
  });
  const { samples } = JSON.parse(readFileSync(join(root, `models/${served}/model.json`), "utf8"));
  const submit = () => stack.call(api, `/v1/models/${served}/predictions`, { input: samples[0].input, cache: false });
  await submit();
  await pause(12 * minuteMs);
  await expectSilence(prometheus, "a stack that works");
  await checkPanels(prometheus);

  await stack.kill(first);
  // Until its beat has expired, the API counts it as alive.
  await submit();
  await expectAlerts(prometheus, ["MillraceNoWorker", "MillraceTargetDown"], true, "a worker dies and work waits");
  await stack.kill(api);
  await expectAlerts(prometheus, ["MillraceApiDown"], true, "the only API dies");
  await pause(10 * minuteMs);
  const still = ["MillraceApiDown", "MillraceNoWorker"];
  await expectAlerts(prometheus, still, true, "with every API dead the backlog is no false all-clear", 40);
  [api, first] = await Promise.all([startApi(), startFirst()]);
  await expectAlerts(prometheus, [...still, "MillraceTargetDown"], false, "both are back and the work is done");

  await stack.kill(redis);
  await expectAlerts(prometheus, ["MillraceRedisAway"], true, "Redis dies");
  redis = await stack.startRedis(data, redis.port);
  await expectAlerts(prometheus, ["MillraceRedisAway"], false, "Redis is back");
  await Promise.all([api, first, second].map(stack.kill));
  await expectAlerts(prometheus, ["MillraceNoMetrics", "MillraceApiDown"], true, "everything dies");
}

try {
  if (process.argv[2] !== "outages") await byExporter();
  if (process.argv[2] !== "exported") await byOutage();
} catch (fault) {
  failed++;
  say(`FAILED  ${fault.stack}`);
}
stack.close();
say(failed === 0 ? "All checks passed." : "Some checks failed.");
process.exit(failed === 0 ? 0 : 1);
