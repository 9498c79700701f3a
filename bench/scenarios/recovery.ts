import { setTimeout as delay } from "node:timers/promises";
import { flowBody, forest } from "../harness/bodies.js";
import { untilDrained } from "../harness/deployment.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { benchKeys, type Millrace, startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median, percentile } from "../load/statistics.js";

/** SIGKILL of a busy worker beside a living one: the time until its jobs are started again. */
export const recovery: Scenario = async ({ onClose, quick, say }) => {
  const load = startLoad(onClose);
  const redis = await startRedis(onClose);
  const stack = await startMillrace(redis, { model: forest }, onClose);
  const { headers, path, port } = stack;
  const body = await flowBody();
  const requests = quick ? 12_000 : 16_000;
  const startedAfterMs: number[] = [];
  const kills = quick ? 1 : 7;
  // A worker may hold no job at its death; then another one is killed.
  for (let i = 1; i <= kills || (startedAfterMs.length === 0 && i <= kills + 4); i++) {
    await stack.stopWorkers();
    await load.run({ port, path, headers, body, connections: 64, requests, expectStatus: 202 });
    await Promise.all([stack.startWorker(), stack.startWorker()]);
    await untilBusy(stack);
    const delaysMs = await killOne(stack);
    startedAfterMs.push(...delaysMs);
    await untilDrained(stack);
    say(`kill ${i}: ${delaysMs.length} jobs, the last after ${Math.round(Math.max(0, ...delaysMs))} ms`);
  }
  if (startedAfterMs.length === 0) throw new Error("the killed workers held no job");
  startedAfterMs.sort((a, b) => a - b);
  return [
    figure("killed to started again, p99", percentile(startedAfterMs, 99) / 1000, "s", { bound: "at most", value: 7 }),
    figure("killed to started again, p50", median(startedAfterMs) / 1000, "s"),
    figure("killed to started again, longest", percentile(startedAfterMs, 100) / 1000, "s"),
    figure("jobs that killed workers held", startedAfterMs.length, "1"),
    figure("kills", kills, "1"),
  ];
};

/** Waits until workers hold jobs. */
async function untilBusy(stack: Millrace): Promise<void> {
  const active = `${benchKeys(forest).queue}active`;
  for (let tries = 0; tries < 1000 && (await stack.redis.client.llen(active)) < 32; tries++) await delay(2);
}

/** Kills the first worker; resolves to the time until the restart of each job that it held, in ms. */
async function killOne(stack: Millrace): Promise<number[]> {
  const { client } = stack.redis;
  const keys = benchKeys(forest);
  const active = `${keys.queue}active`;
  const [victim] = stack.workers.splice(0, 1);
  const killedAt = Date.now();
  victim?.kill("SIGKILL");
  // The dead worker's jobs stay in the list until their locks expire; the other's jobs finish soon.
  const atDeath = await client.lrange(active, 0, -1);
  await delay(1000);
  const still = new Set(await client.lrange(active, 0, -1));
  const held = atDeath.filter((id) => still.has(id));
  const finalBefore = await Promise.all(held.map((id) => client.exists(keys.result(id))));
  await victim?.stop();
  const lost = held.filter((_, i) => finalBefore[i] === 0);
  await untilDrained(stack);
  const delaysMs = await Promise.all(
    lost.map(async (id) => {
      const result = await client.get(keys.result(id));
      const json = result?.slice(result.indexOf("\n") + 1);
      if (json === undefined) throw new Error(`prediction ${id} was lost`);
      const { started_at: startedAt, status } = JSON.parse(json) as { started_at: string; status: string };
      if (status !== "succeeded") throw new Error(`prediction ${id} ended as ${status}`);
      return Date.parse(startedAt) - killedAt;
    }),
  );
  // A job started before the kill was the other worker's.
  return delaysMs.filter((ms) => ms >= 0);
}
