import { setTimeout as delay } from "node:timers/promises";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { type OwnCluster, startOwnCluster } from "../support/redis/own-cluster.js";
import { writeChaosResult } from "../support/run/chaos-result.js";
import { assertNotified } from "../support/stack/assert-notified.js";
import { noticesOnly, TestStack } from "../support/stack/stack.js";

/** More than one in the long form, `npm run chaos`. */
const outages = Number(process.env.CHAOS_OUTAGES ?? 1);
const inputs: Record<string, unknown> = {
  "echo-int64": { x: [[1, 2, 3]] },
  "echo-float32": { x: [[4, 5, 6]] },
  "echo-uint8": { x: [[7, 8, 9]] },
  "throws-on-row": { x: [[5]] },
  slow: { x: [[1]] },
};
const models = Object.keys(inputs);

describe("a cluster that loses a node", () => {
  let cluster: OwnCluster;
  let stack: TestStack;

  beforeAll(async () => {
    cluster = await startOwnCluster(3);
    stack = await TestStack.start({ models, redisUrl: cluster.url, ...(outages === 1 && { timing: noticesOnly }) });
  });
  afterAll(async () => {
    await stack?.close().finally(() => cluster.close());
  });

  /** Resolves to the time, in ms, until every model answered with a result by a notice. */
  async function untilAllAnswer(): Promise<number> {
    const begun = performance.now();
    await Promise.all(
      models.map((model) =>
        eventually(async () => {
          const input = inputs[model];
          const ask = () => stack.predict(model, input);
          const answer = await (outages === 1 ? assertNotified(stack, { model, input }, ask) : ask());
          expect([model, answer.status, answer.body.status]).toEqual([model, 200, "succeeded"]);
        }, 60_000),
      ),
    );
    return performance.now() - begun;
  }

  test(
    "the same API and worker continue with models on a node that failed and returned, idle or busy",
    async () => {
      let stopped = false;
      let quiet = false;
      const accepted = new Set<string>();
      const caller = async (model: string) => {
        while (!stopped) {
          if (quiet) await delay(50);
          else {
            const answer = await stack.post(`/v1/models/${model}/predictions`, { input: inputs[model], cache: false });
            if (answer.status === 202) accepted.add(answer.body.id);
            else expect(answer.status, JSON.stringify(answer.body)).toBe(503);
            await delay(answer.status === 202 ? 20 : 100);
          }
        }
      };
      const callers = Promise.all(models.map(caller));
      let longestBackMs = 0;
      for (let i = 0; i < outages; i++) {
        const node = outages === 1 ? await cluster.nodeOf(modelKeys(stack.prefix, "slow").base) : i % 3;
        const victim = cluster.nodes[node] as OwnCluster["nodes"][number];
        quiet = i % 2 === 1;
        if (quiet) await delay(2000 + Math.random() * 6000);
        await victim.kill();
        // Until the other nodes have noticed; in the long form also longer than any timeout of a connection.
        if (outages === 1) await cluster.untilMissed(node);
        else await delay(2000 + Math.random() * (i % 4 === 3 ? 30_000 : 12_000));
        await victim.resume();
        await cluster.untilWhole();
        longestBackMs = Math.max(longestBackMs, await untilAllAnswer());
      }
      stopped = true;
      await callers;
      for (const id of accepted) expect((await stack.final(id)).status).toBe("succeeded");
      if (outages > 1) {
        const figures = { outages, accepted: accepted.size, lost: 0, longestBackMs: Math.round(longestBackMs) };
        writeChaosResult("chaos-cluster", figures);
      }
    },
    120_000 + outages * 90_000,
  );
});
