import { Worker } from "node:worker_threads";
import { parseAllowances } from "@millrace/shared/access/webhook-target.js";
import { createWebhookSender } from "@millrace/workers/webhooks/deliver-webhook.js";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { secretOf } from "../support/http/receiver.js";
import { machineClock } from "../support/redis/machine-clock.js";

const deadlineMs = 1000;

/** A receiver with a thread of its own. It answers `/soon` after 300 ms, and nothing else. */
const receiver = `
  const { parentPort } = require("node:worker_threads");
  const server = require("node:http").createServer((request, response) => {
    parentPort.postMessage("asked");
    if (request.url === "/soon") setTimeout(() => response.writeHead(204).end(), 300);
  });
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
`;

describe("a deadline of a webhook, in a worker that stands still for longer than that", () => {
  const sender = createWebhookSender({
    secrets: [secretOf(3)],
    allow: parseAllowances("127.0.0.0/8"),
    deadlineMs,
    clock: machineClock,
  });
  let thread: Worker;
  let port: number;
  const told = () => new Promise<string | number>((resolve) => thread.once("message", resolve));
  beforeEach(async () => {
    thread = new Worker(receiver, { eval: true });
    port = (await told()) as number;
  });
  afterEach(() => thread.terminate());
  afterAll(() => sender.close());

  const sendAndStandStill = async (path: string) => {
    const answer = sender.send({ id: "a", url: `http://127.0.0.1:${port}${path}`, body: "{}" });
    expect(await told()).toBe("asked");
    const from = performance.now();
    while (performance.now() - from < 2 * deadlineMs);
    return answer;
  };

  test("is not over for an answer that came in time", async () => {
    expect(await sendAndStandStill("/soon")).toMatchObject({ status: 204, error: null });
  });

  test("ends a try without an answer all the same", async () => {
    const { durationMs, ...answer } = await sendAndStandStill("/never");
    expect(answer).toMatchObject({ status: null, error: "no complete answer within 1 s" });
    expect(durationMs).toBeGreaterThanOrEqual(2 * deadlineMs);
  });
});
