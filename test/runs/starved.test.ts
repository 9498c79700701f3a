import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { LogLine } from "@millrace/cli/service-process.js";
import { bullKeys } from "@millrace/shared/redis/key-names.js";
import { modelKeys, workersKey } from "@millrace/shared/redis/keys.js";
import type { Redis } from "ioredis";
import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf } from "../support/http/receiver.js";
import { scrape } from "../support/http/scrape.js";
import type { TestWorker } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

/** Leaves a process 5 % of a core until `end` is called. */
function starve(pid: number): { end(): Promise<void> } {
  // A process of its own: this one is busy with other tests, and while it is, the other would stand still.
  const script = fileURLToPath(new URL("../support/stack/starve.js", import.meta.url));
  const quota = spawn(process.execPath, [script, String(pid), "0.05"], { stdio: ["ignore", "ignore", "inherit"] });
  const exited = once(quota, "exit");
  return {
    async end() {
      quota.kill("SIGKILL");
      await exited;
      process.kill(pid, "SIGCONT");
    },
  };
}

/** The most lines that a process logged in any second. */
function busiestSecond(lines: readonly LogLine[], pid: number): number {
  const times = lines.filter((line) => line.pid === pid).map(({ timestamp }) => Date.parse(String(timestamp)));
  return Math.max(0, ...times.map((from) => times.filter((at) => at >= from && at < from + 1000).length));
}

describe("a worker whose main thread is kept from its work", () => {
  let stack: TestStack;
  afterEach(() => stack.close());

  /** Whether each beat holds: of the worker, and of its version. */
  const alive = async () => {
    const { keyPrefix, redis } = { keyPrefix: stack.prefix, redis: stack.redis as Redis };
    const now = Number((await redis.time())[0]) * 1000;
    const [workers, versions] = await Promise.all([
      redis.zcount(workersKey(keyPrefix), now, "+inf"),
      redis.zcount(modelKeys(keyPrefix, "scalars").beats, now, "+inf"),
    ]);
    return [workers, versions];
  };
  const start = (hangMs: number, blockMs: number) =>
    TestStack.start({
      models: ["scalars"],
      workerEnv: { MILLRACE_TEST_BLOCK_MS: String(blockMs) },
      timing: { worker: { hangMs } },
    });

  test("is not taken for dead while it is blocked for 15 s", { timeout: 120_000 }, async () => {
    stack = await start(60_000, 15_000);
    const [worker] = stack.workers as [TestWorker];
    process.kill(worker.pid, "SIGUSR2");
    const answered = fetch(`http://127.0.0.1:${worker.port}/health`);
    let isOver = false;
    const over = answered.then(() => {
      isOver = true;
    });
    let looks = 0;
    while (!isOver) {
      expect(await alive()).toEqual([1, 1]);
      looks += 1;
      await delay(250);
    }
    await over;
    expect(looks).toBeGreaterThan(20);
    expect((await stack.predict("scalars", { a: 1, b: 2 })).body.status).toBe("succeeded");
  });

  test("is dead once it has hung for longer than allowed, and lives again when it goes on", {
    timeout: 120_000,
  }, async () => {
    stack = await start(2000, 20_000);
    const [worker] = stack.workers as [TestWorker];
    process.kill(worker.pid, "SIGUSR2");
    await eventually(async () => expect(await alive()).toEqual([0, 0]), 18_000);
    await eventually(async () => expect(await alive()).toEqual([1, 1]), 30_000);
    expect((await stack.predict("scalars", { a: 1, b: 2 })).body.status).toBe("succeeded");
  });
});

describe("a worker with 5 % of a core", () => {
  let stack: TestStack;
  let receiver: Receiver;
  afterEach(async () => {
    await receiver.close();
    await stack.close();
  });

  test("holds what it can renew, sends nothing twice without need, logs little, and all is delivered", {
    timeout: 240_000,
  }, async () => {
    const count = 1500;
    receiver = await Receiver.start();
    stack = await TestStack.start({
      models: ["scalars"],
      workerEnv: { WORKER_ROLES: "inference" },
      env: { WEBHOOK_SECRET: secretOf(3), WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
    const webhook = { url: receiver.url("/hook") };
    for (let i = 0; i < count; i += 100)
      await Promise.all(
        Array.from({ length: 100 }, (_, j) => stack.submit("scalars", { a: i + j, b: 0 }, { webhook })),
      );
    const keys = modelKeys(stack.prefix, "scalars");
    const redis = stack.redis as Redis;
    const waiting = () => redis.llen(`${keys.webhookQueue}${bullKeys.wait}`);
    const active = () => redis.llen(`${keys.webhookQueue}${bullKeys.active}`);
    await eventually(async () => expect(await waiting()).toBe(count), 60_000);

    const starved = await stack.startWorker({ WORKER_ROLES: "webhooks" });
    const quota = starve(starved.pid);
    let mostHeld = 0;
    try {
      const until = performance.now() + 25_000;
      while (performance.now() < until) {
        mostHeld = Math.max(mostHeld, await active());
        await delay(100);
      }
      // One that takes whatever lock the starved one loses.
      await stack.startWorker({ WORKER_ROLES: "webhooks" });
      await eventually(async () => expect(await waiting()).toBe(0), 60_000);
    } finally {
      await quota.end();
    }
    const ids = () => receiver.requests.map(({ headers }) => headers["webhook-id"] as string);
    await eventually(() => expect(new Set(ids()).size).toBe(count), 60_000);
    await eventually(async () => expect(await active()).toBe(0));
    const repeats = ids().length - count;
    const lost = await scrape(`http://127.0.0.1:${starved.port}`, "ml_job_lock_lost_total", { kind: "delivery" });
    const figures = JSON.stringify({ mostHeld, repeats, lost });
    // A delivery is sent again only where its lock was lost while it was sent.
    expect(repeats, figures).toBeLessThanOrEqual(lost);
    // How much it may hold depends on what the machine leaves it; what it cannot renew is bounded in any case.
    expect(lost, figures).toBeLessThanOrEqual(count / 20);
    for (const { pid } of [...stack.workers, ...stack.apis]) expect(busiestSecond(stack.log, pid)).toBeLessThan(50);
  });
});
