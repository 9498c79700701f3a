import { cp, rename } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { childrenOf } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";
import { startSteadyTraffic } from "../support/stack/steady-traffic.js";

const model = "dynamic-inner";
const fixture = fileURLToPath(new URL("../fixtures/models/echo-float32/1", import.meta.url));

describe("slots that are killed at random while a version is loaded", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [model],
      manifests: { [model]: { kind: "tensor", attempts: 20 } },
      slots: 2,
    });
  });
  afterAll(() => stack.close());

  test("cost predictions nothing but attempts, and the version is served in the end", async () => {
    const [worker] = stack.workers as [TestStack["workers"][number]];
    const traffic = startSteadyTraffic(stack, model, (i) => ({ x: [[i, 0, 0]] }));
    const folder = (name: string) => join(stack.modelsDir, model, name);
    await cp(fixture, folder("aside"), { recursive: true });
    await rename(folder("aside"), folder("2"));
    for (let kills = 0; kills < 6; kills++) {
      // Kills at an arbitrary moment of the load.
      await delay(150 + 50 * kills);
      const pids = await childrenOf(worker.pid);
      process.kill(pids[kills % pids.length] as number, "SIGKILL");
    }
    await eventually(async () => {
      const { body } = await stack.get(`/v1/models/${model}`);
      expect(body.versions).toHaveLength(2);
    }, 40_000);
    await eventually(() => expect(traffic.answers.at(-1)?.body.version).toBe("2"));
    const answers = await traffic.stop();
    expect(answers.map(({ body, status }) => [status, body.status])).toEqual(answers.map(() => [200, "succeeded"]));
    await eventually(async () => expect(await childrenOf(worker.pid)).toHaveLength(2));
  });
});
