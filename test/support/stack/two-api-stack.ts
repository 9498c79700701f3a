import { cp } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { eventually } from "../eventually.js";
import { localWebhooks, openWebhookSink, type WebhookSink } from "../http/webhook-sink.js";
import { flow } from "./flows.js";
import { type Answer, type CallOptions, TestStack } from "./stack.js";

/** A model with two versions of the same bytes in a `TwoApiStack`. */
export const tree = "intrusion-decision-tree";

/** Two APIs, one worker with one slot, a webhook receiver, and submissions as a client makes them. */
export interface TwoApiStack {
  stack: TestStack;
  sink: WebhookSink;
  /** Starts a worker; both APIs know of both versions when this resolves, and so choose the same one. */
  startWorker: TestStack["startWorker"];
  /** Submits; unlike `TestStack.submit`, it does not set `cache` and asserts nothing. */
  send(model: string, input: unknown, rest?: object, options?: CallOptions): Promise<Answer>;
  /** Submits and waits for the end. */
  // biome-ignore lint/suspicious/noExplicitAny: see Answer
  done(model: string, input: unknown, rest?: object): Promise<any>;
  /** Alternates between the two APIs. */
  apiUrl(i: number): { url: string };
  /** A flow not sent before. */
  freshFlow(): number[];
  close(): Promise<void>;
}

export async function startTwoApiStack(): Promise<TwoApiStack> {
  const sink = await openWebhookSink();
  const stack = await TestStack.start({
    models: [tree, "slow", "throws-on-row", "echo-float32"],
    manifests: { "echo-float32": { kind: "tensor", cache_ttl_seconds: 5 } },
    apis: 2,
    workers: 0,
    env: localWebhooks,
  });
  await cp(join(stack.modelsDir, tree, "1"), join(stack.modelsDir, tree, "2"), { recursive: true });
  const startWorker = async () => {
    const worker = await stack.startWorker();
    await eventually(async () => {
      for (const { url } of stack.apis) {
        const { body } = await stack.get(`/v1/models/${tree}`, { url });
        expect(body.versions).toMatchObject([{ workers_alive: 1 }, { workers_alive: 1 }]);
      }
    });
    return worker;
  };
  await startWorker();
  const send: TwoApiStack["send"] = (model, input, rest = {}, options = {}) =>
    stack.post(`/v1/models/${model}/predictions`, { input, ...rest }, options);
  let change = 0;
  return {
    stack,
    sink,
    startWorker,
    send,
    done: async (model, input, rest) => stack.final((await send(model, input, rest)).body.id),
    apiUrl: (i) => ({ url: stack.apis[i % 2]?.url as string }),
    freshFlow: () => flow(++change * 7919),
    async close() {
      await stack.close();
      await sink.close();
    },
  };
}
