import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver } from "../support/http/receiver.js";
import { localWebhooks } from "../support/http/webhook-sink.js";
import { TestStack } from "../support/stack/stack.js";

const model = "echo-float32";

describe("a receiver that fails", () => {
  let receiver: Receiver;
  let stack: TestStack;
  beforeAll(async () => {
    receiver = await Receiver.start(({ path }) => ({ status: path.startsWith("/broken") ? 500 : 204 }));
    stack = await TestStack.start({
      models: [model],
      env: { ...localWebhooks, WEBHOOK_RETRY_SCHEDULE: "1,600,600" },
      timing: { worker: { hostPauseMs: 600_000 } },
    });
  });
  afterAll(async () => {
    await stack?.close();
    await receiver?.close();
  });

  const predict = async (owner: "alice" | "bob", path: string, value: number) => {
    const input = { x: [[value, 0, 0]] };
    expect((await stack.predict(model, input, { webhook: receiver.url(path) }, { as: owner })).body.code).toBe(
      undefined,
    );
  };

  test("is paused for its owner, and another owner's deliveries to the same host are not", async () => {
    for (let i = 0; i < 40; i++) await predict("alice", `/broken/${i}`, i);
    const ofAlice = () => receiver.requests.filter(({ path }) => path.startsWith("/broken")).length;
    await eventually(() => expect(ofAlice()).toBeGreaterThanOrEqual(5));
    // The control: alice's own to a path that works wait for the pause, so there is one.
    await predict("alice", "/own", 100);
    for (let i = 0; i < 10; i++) await predict("bob", `/fine/${i}`, i);
    for (let i = 0; i < 10; i++) await receiver.received(`/fine/${i}`);
    expect(receiver.to("/own")).toHaveLength(0);
  });
});
