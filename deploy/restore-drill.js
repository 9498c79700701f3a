#!/usr/bin/env node
// deploy/restore-drill.js: proves that backups can be put back. A Redis, an API and a worker of its own accept work; a
// snapshot is taken while they run; all of it is destroyed with SIGKILL and the data deleted; the snapshot is restored;
// then every result is read and compared, and what had been waiting is finished. With BACKUP_BUCKET_URL the snapshot
// goes through that bucket. Exits 0 only if nothing is missing or different. Needs `npm run build`, redis-server, bash.
// deploy/restore-drill.js FILE: restores a snapshot of yours into such a Redis and tells its content. Nothing runs, and
// no webhook leaves.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { openOwnStack, root } from "./own-stack.js";

const scripts = join(root, "deploy/chart/files/backup");
const model = "intrusion-decision-tree";
const finished = 200;
const waiting = 50;
const batchRows = 5000;

const stack = openOwnStack();
const { call, folder, kill, password, startRedis } = stack;
const say = (line) => process.stdout.write(`${line}\n`);
const start = (kind, redis) => stack.startService(kind, redis, { WORKER_MODELS: model });

const json = async (...args) => (await call(...args)).json();

/** Reads a prediction until it is final. */
async function ended(api, id) {
  for (let tries = 0; ; tries++) {
    const prediction = await json(api, `/v1/predictions/${id}?wait=30`);
    if (!["queued", "running"].includes(prediction.status) || tries > 4) return prediction;
  }
}

const { samples } = JSON.parse(readFileSync(join(root, `models/${model}/model.json`), "utf8"));
/** Inputs that differ, so that each has a run and a result of its own. */
const input = (i) => {
  const values = Object.values(samples[0].input);
  const list = Array.isArray(samples[0].input) ? [...samples[0].input] : values;
  list[0] = i;
  return list;
};

/** The snapshot's own way: the folder, or through a bucket and back. */
function backUp(redis) {
  const backups = join(folder, "backups");
  const env = { ...process.env, REDIS_URL: redis.url, REDIS_PASSWORD: password };
  execFileSync("bash", [join(scripts, "dump"), backups], { env, stdio: "inherit" });
  const [name] = readdirSync(backups).filter((file) => file.endsWith(".rdb.gz"));
  if (!process.env.BACKUP_BUCKET_URL) return join(backups, name);
  execFileSync("sh", [join(scripts, "bucket"), "put", backups], { env, stdio: "inherit" });
  rmSync(backups, { recursive: true });
  const file = join(folder, name);
  execFileSync("sh", [join(scripts, "bucket"), "get", name, file], { env, stdio: "inherit" });
  return file;
}

const restore = (file, data) => {
  mkdirSync(data, { recursive: true });
  execFileSync("sh", [join(scripts, "restore"), file, data], { stdio: "inherit" });
};

async function drill() {
  let redis = await startRedis(join(folder, "before"));
  let [worker, api] = await Promise.all([start("worker", redis), start("api", redis)]);
  const submit = (i) => json(api, `/v1/models/${model}/predictions`, { input: input(i), metadata: { place: i } });
  const accepted = await Promise.all(Array.from({ length: finished }, (_, i) => submit(i + 1)));
  const rows = Array.from({ length: batchRows }, (_, i) => JSON.stringify(input(10_000 + i))).join("\n");
  const upload = { "content-type": "application/x-ndjson" };
  const batch = await json(api, `/v1/models/${model}/batches`, rows, upload);
  const before = await Promise.all(accepted.map(({ id }) => ended(api, id)));
  await json(api, `/v1/batches/${batch.id}?wait=60`);
  const resultsOf = async (on) => (await call(on, `/v1/batches/${batch.id}/results`)).text();
  const lines = await resultsOf(api);
  await kill(worker);
  const queued = await Promise.all(Array.from({ length: waiting }, (_, i) => submit(1000 + i)));
  say(`accepted: ${finished} predictions that are finished, ${waiting} that wait, a batch of ${batchRows} rows`);

  const file = backUp(redis);
  await kill(api);
  await kill(redis);
  rmSync(join(folder, "before"), { recursive: true });
  say("destroyed: worker, API and Redis killed, its data deleted");

  const data = join(folder, "after");
  restore(file, data);
  const begun = Date.now();
  redis = await startRedis(data);
  [worker, api] = await Promise.all([start("worker", redis), start("api", redis)]);
  say(`restored: ready after ${((Date.now() - begun) / 1000).toFixed(1)} s`);

  const faults = [];
  const check = (what, holds) => {
    if (!holds) faults.push(what);
  };
  for (const prediction of before) {
    const after = await json(api, `/v1/predictions/${prediction.id}`).catch(() => null);
    check(`prediction ${prediction.id}`, after?.status === "succeeded" && isDeepStrictEqual(after, prediction));
  }
  for (const { id } of queued) {
    const after = await ended(api, id).catch(() => null);
    check(`waiting prediction ${id}`, after?.status === "succeeded");
  }
  check(`results of batch ${batch.id}`, lines.split("\n").length > batchRows && (await resultsOf(api)) === lines);
  // It is as durable as before, and takes new work.
  check("appendonly", redis.cli("config", "get", "appendonly").endsWith("yes"));
  check("new work", (await ended(api, (await submit(5000)).id)).status === "succeeded");
  for (const fault of faults.slice(0, 10)) say(`MISSING OR DIFFERENT: ${fault}`);
  if (faults.length > 0) throw new Error(`${faults.length} of the accepted are missing or different`);
  say(`read: all ${finished} results and ${batchRows} rows as before, and the ${waiting} that waited are finished`);
}

async function inspect(file) {
  const data = join(folder, "data");
  restore(resolve(file), data);
  const redis = await startRedis(data);
  say(`Redis has loaded ${redis.cli("dbsize")} keys`);
  const api = await start("api", redis);
  say(`an API is ready on it: ${JSON.stringify(await (await fetch(`${api.url}/ready`)).json())}`);
  const metrics = await (await fetch(`${api.url}/metrics`)).text();
  for (const line of metrics.match(/^ml_queue_depth\{.*state="(?:waiting|batch_rows)".*$/gm) ?? []) say(line);
}

function close(code) {
  stack.close();
  process.exit(code);
}
try {
  await (process.argv[2] === undefined ? drill() : inspect(process.argv[2]));
  close(0);
} catch (fault) {
  process.stderr.write(`${fault.message}\n`);
  close(1);
}
