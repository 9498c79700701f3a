import { newId } from "@millrace/shared/redis/ids.js";
import { acceptPredictions } from "@millrace/shared/scripts/queue/accept.js";
import { flowBody, forest } from "../harness/bodies.js";
import { depthOf, untilQuiet } from "../harness/deployment.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { benchKeys, type Millrace, startMillrace, workerMetric } from "../harness/start-millrace.js";
import { type BenchRedis, startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

const limits = { jobs: 2 ** 40, rows: 2 ** 40, bytes: 2 ** 50, ownerPart: 1, followers: 1000 };

/**
 * Rates of accepting and finishing single predictions beside a million waiting ones of another owner, against a
 * thousand.
 */
export const depth: Scenario = async ({ onClose, quick, say }) => {
  const load = startLoad(onClose);
  const body = await flowBody();
  const requests = quick ? 300 : 10_000;
  const submit = ({ headers, path, port }: Millrace, count: number) =>
    load.run({ port, path, headers, body, connections: 64, requests: count, expectStatus: 202 });

  const deploy = async () => {
    const redis = await startRedis(onClose);
    const stack = await startMillrace(redis, { model: forest, settings: { MAX_QUEUE_DEPTH: "1000000000" } }, onClose);
    await submit(stack, quick ? 100 : 3000);
    return { redis, stack };
  };

  /** Adds waiting predictions of another owner; no worker must run. */
  const fill = async ({ client }: BenchRedis, stack: Millrace, waiting: number) => {
    const keys = benchKeys(forest);
    await submit(stack, 1);
    const [own] = await client.lrange(`${keys.queue}wait`, 0, 0);
    const { d: _d, q: _q, ...data } = JSON.parse((await client.hget(`${keys.queue}${own}`, "data")) as string);
    const dataJson = JSON.stringify({ ...data, o: "another" });
    const none = { watcher: null, dedup: null, idempotency: null, follower: null };
    while ((await depthOf(stack)) < waiting) {
      const step = Array.from({ length: Math.min(200, waiting) }, () => ({
        ...{ id: newId(keys.tag), owner: "another", dataJson, delayMs: 0, priority: 0 },
        ...none,
      }));
      await acceptPredictions(client, keys, step, { nowMs: Date.now(), limits, resultTtlMs: 86_400_000 });
    }
  };

  const measureBeside = async (redis: BenchRedis, stack: Millrace, waiting: number) => {
    await stack.stopWorkers();
    await fill(redis, stack, waiting);
    await untilQuiet(stack);
    await stack.startWorker();
    const finished = () => workerMetric(stack.workers, "ml_prediction_total", 'status="succeeded"');
    const [before, begunAt] = [await finished(), Date.now()];
    const { firstSentAt, lastAnsweredAt } = await submit(stack, requests);
    const rates = {
      accepted: (requests * 1000) / (lastAnsweredAt - firstSentAt),
      finished: (((await finished()) - before) * 1000) / (Date.now() - begunAt),
    };
    const left = await depthOf(stack);
    say(`${Math.round(rates.accepted)} accepted/s, ${Math.round(rates.finished)} finished/s, ${left} wait`);
    return rates;
  };

  const [shallow, deep] = [await deploy(), await deploy()];
  const rounds: Record<"accepted" | "finished", number>[] = [];
  for (let i = 0; i < (quick ? 1 : 5); i++) {
    const few = await measureBeside(shallow.redis, shallow.stack, quick ? 200 : 1000);
    const many = await measureBeside(deep.redis, deep.stack, quick ? 2000 : 1_000_000);
    rounds.push({ accepted: many.accepted / few.accepted, finished: many.finished / few.finished });
  }
  return (["accepted", "finished"] as const).map((what) =>
    figure(`${what} beside a million that wait, of beside a thousand`, median(rounds.map((at) => at[what])), "ratio", {
      bound: "at least",
      value: 0.9,
    }),
  );
};
