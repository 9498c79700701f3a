import { setTimeout as delay } from "node:timers/promises";
import { flowBody, forest } from "../../harness/bodies.js";
import { usageFigures } from "../../harness/compare.js";
import { untilDrained } from "../../harness/deployment.js";
import { type LoadShape, measure, type Round } from "../../harness/measure.js";
import { withReleasers } from "../../harness/releasers.js";
import { type Figure, figure, type ScenarioContext } from "../../harness/scenario.js";
import type { Load } from "../../harness/start-load.js";
import { benchKeys, type Millrace, startMillrace } from "../../harness/start-millrace.js";
import { type Receiver, startReceiver } from "../../harness/start-receiver.js";
import { startRedis } from "../../harness/start-redis.js";
import { latencyOf, median } from "../../load/statistics.js";

const settings = {
  WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, "bench").toString("base64")}`,
  WEBHOOK_ALLOW_HOSTS: "127.0.0.1",
};
const kinds = ["without", "with"] as const;

/** Cost of webhooks under a rush of predictions, and their latency on an idle stack. */
export const deliveries = ({ quick, say }: ScenarioContext, load: Load): Promise<Figure[]> =>
  withReleasers(async (onClose) => {
    const receiver = await startReceiver(onClose);
    const redis = await startRedis(onClose);
    const millrace = await startMillrace(redis, { model: forest, settings }, onClose);
    const processes = () => [...millrace.processes(), { name: "receiver", pid: receiver.pid }];
    const stack = { ...millrace, processes };
    return [
      ...(await rush(load, stack, receiver, quick, say)),
      ...(await idle(load, stack, receiver, quick ? 10 : 300)),
    ];
  });

async function rush(load: Load, stack: Millrace, receiver: Receiver, quick: boolean, say: (line: string) => void) {
  const bodies = { without: await flowBody(), with: await bodyFor(receiver) };
  const requests = quick ? 500 : 8000;
  const run = async (kind: "with" | "without", count: number): Promise<Round> => {
    const shape: LoadShape = { body: bodies[kind], connections: 64, requests: count, waiting: false };
    if (kind === "with") shape.until = (await receiver.expect({ webhooks: count, timed: false })).arrived;
    const round = await measure(load, stack, shape);
    await untilDelivered(stack);
    return round;
  };
  const rounds: Record<(typeof kinds)[number], Round[]> = { without: [], with: [] };
  for (const kind of kinds) await run(kind, quick ? 200 : 3000);
  for (let i = 1; i <= (quick ? 1 : 7); i++) {
    for (const kind of kinds) {
      const round = await run(kind, requests);
      rounds[kind].push(round);
      say(`round ${i}, ${kind} webhook: ${Math.round(round.finishedPerSecond)}/s`);
    }
  }
  const perSecond = (kind: (typeof kinds)[number]) => rounds[kind].map((round) => round.finishedPerSecond);
  const plain = perSecond("without");
  const ratio = median(perSecond("with").map((value, i) => value / (plain[i] as number)));
  return [
    figure("with webhook, of without", ratio, "ratio", { bound: "at least", value: 0.5 }),
    ...kinds.flatMap((kind) => [
      figure(
        `${kind} webhook: accepted, inferred${kind === "with" ? ", delivered" : ""}`,
        median(perSecond(kind)),
        "1/s",
      ),
      ...usageFigures(`${kind} webhook`, rounds[kind], requests),
    ]),
  ];
}

async function idle(load: Load, stack: Millrace, receiver: Receiver, count: number): Promise<Figure[]> {
  const { headers, path, port } = stack;
  const body = await bodyFor(receiver);
  const delaysMs: number[] = [];
  for (let i = 0; i < count; i++) {
    const { arrived } = await receiver.expect({ webhooks: 1, timed: true });
    await load.run({ port, path, headers, body, connections: 1, requests: 1, expectStatus: 202 });
    delaysMs.push(...(await arrived).delaysMs);
    await untilDelivered(stack);
    await delay(20);
  }
  const { max, p50, p99 } = latencyOf(Float64Array.from(delaysMs));
  return [
    figure("idle: final to delivered, p50", p50, "ms", { bound: "at most", value: 5 }),
    figure("idle: final to delivered, p99", p99, "ms", { bound: "at most", value: 25 }),
    figure("idle: final to delivered, longest", max, "ms"),
  ];
}

const bodyFor = async ({ url }: Receiver) => `${(await flowBody()).slice(0, -1)},"webhook":{"url":"${url}"}}`;

/** The last webhook arrives before its delivery is recorded, which must not fall into the next round. */
const untilDelivered = (stack: Millrace) => untilDrained({ redis: stack.redis, queue: benchKeys(forest).webhookQueue });
