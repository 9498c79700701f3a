import { setTimeout as delay } from "node:timers/promises";
import { forest } from "../harness/bodies.js";
import { readCommit, readMachine } from "../harness/machine.js";
import type { Watched } from "../harness/process-usage.js";
import { type OnClose, withReleasers } from "../harness/releasers.js";
import { tableOf, writeResult } from "../harness/report.js";
import { type Figure, figure, type Goal } from "../harness/scenario.js";
import { type Millrace, startMillrace } from "../harness/start-millrace.js";
import { startReceiver } from "../harness/start-receiver.js";
import { startRedis } from "../harness/start-redis.js";
import { countKeys } from "./count-keys.js";
import { openJobs, queues, startTraffic } from "./everyday-traffic.js";
import { watchProcesses } from "./watch-processes.js";
import { watchStore } from "./watch-store.js";

const seconds = Number(process.env.SOAK_SECONDS ?? 1800);
const perSecond = 200;
const resultTtlSeconds = 60;
/** Part of the time before memory counts: caches fill, and heaps grow to the size for the load. */
const warmUpShare = 0.2;
const settings = {
  RESULT_TTL_SECONDS: String(resultTtlSeconds),
  WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, "soak").toString("base64")}`,
  WEBHOOK_ALLOW_HOSTS: "127.0.0.1",
};

const flat: Goal = { bound: "at most", value: 5 };
const say = (line: string) => process.stderr.write(`  ${line}\n`);

/** A long steady load: the memory of every process stays the same, and Redis returns to its state before. */
async function soak(onClose: OnClose): Promise<Figure[]> {
  const redis = await startRedis(onClose);
  const receiver = await startReceiver(onClose);
  const stack = await startMillrace(redis, { model: forest, settings }, onClose);

  say("warming up");
  const warmUp = await startTraffic(stack, receiver, perSecond, onClose);
  await delay(Math.max(30, 0.1 * seconds) * 1000);
  await warmUp.stop();
  await untilForgotten(stack);
  const before = await countKeys(redis, queues);

  say("under load");
  const traffic = await startTraffic(stack, receiver, perSecond, onClose);
  await delay(warmUpShare * seconds * 1000);
  const watch = watchProcesses(oneByOne(stack), stack.port);
  const stored = watchStore(redis);
  await delay((1 - warmUpShare) * seconds * 1000);
  const store = await stored.stop();
  const courses = watch.stop();
  say(`used memory: ${store.usedMiBByPart.join(" ")} MiB`);
  const answered = await traffic.stop();
  await untilForgotten(stack);
  const after = await countKeys(redis, queues);

  const keys = (counts: Map<string, number>) => [...counts.values()].reduce((sum, count) => sum + count, 0);
  for (const kind of new Set([...before.keys(), ...after.keys()])) {
    const [was, is] = [before.get(kind) ?? 0, after.get(kind) ?? 0];
    if (was !== is) say(`${kind}: ${was} -> ${is}`);
  }
  return [
    figure("seconds", seconds, "s"),
    figure("predictions, each answered with its result", answered, "1"),
    ...courses.flatMap(({ handles, name, pssMiB, pssMiBByPart }) => {
      say(`${name}: ${pssMiBByPart.join(" ")} MiB`);
      return [
        figure(`${name}: memory at first`, pssMiB.first, "MiB"),
        figure(`${name}: memory, change`, 100 * pssMiB.change, "%", flat),
        figure(`${name}: open handles but for clients, at first`, handles.first, "1"),
        figure(`${name}: open handles but for clients, change`, 100 * handles.change, "%", flat),
      ];
    }),
    figure("redis: used memory, change", 100 * store.usedMemory, "%", flat),
    figure("redis: used memory a key, change", 100 * store.bytesPerKey, "%", flat),
    figure("redis: keys under load, change", 100 * store.keys, "%"),
    figure("redis: keys before", keys(before), "1"),
    figure("redis: keys afterwards, change", keys(after) - keys(before), "1", { bound: "at most", value: 0 }),
  ];
}

/** Each process under its own name. */
function oneByOne(stack: Millrace): Watched[] {
  let slots = 0;
  return stack
    .processes()
    .map(({ name, pid }) => (name === "slots" ? { name: `slot ${++slots}`, pid } : { name, pid }));
}

/** Waits until nothing is under way, and all results have expired. */
async function untilForgotten(stack: Millrace): Promise<void> {
  while ((await openJobs(stack)) > 0) await delay(100);
  await delay((resultTtlSeconds + 5) * 1000);
  // Expired keys are deleted on access, or in the background.
  for (let last = -1, now = await stack.redis.client.dbsize(); now !== last; ) {
    last = now;
    await delay(1000);
    now = await stack.redis.client.dbsize();
  }
}

// A private Redis does not keep this process alive, but its end must be awaited.
setInterval(() => undefined, 60_000);
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
const [commit, machine] = [readCommit(), readMachine()];
const figures = await withReleasers(soak);
process.stdout.write(`${tableOf(figures)}\n`);
await writeResult("soak", commit, machine, figures);
process.exit(figures.some(({ met }) => met === false) ? 1 : 0);
