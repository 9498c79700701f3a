import { lookup } from "node:dns/promises";
import { createServer, type Server } from "node:net";
import { hostname } from "node:os";
import { parseAllowances } from "@millrace/shared/access/webhook-target.js";
import { createWebhookSender } from "@millrace/workers/webhooks/deliver-webhook.js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf, verified } from "../support/http/receiver.js";
import { machineClock } from "../support/redis/machine-clock.js";
import { TestStack } from "../support/stack/stack.js";

const secret = secretOf(6);
const deadlineMs = 10_000;
/** The names among localhost and this machine's own that resolve to loopback here. */
const inwardNames: string[] = [];
for (const name of ["localhost", hostname()]) {
  const found = await lookup(name).catch(() => null);
  if (found?.address.startsWith("127.") || found?.address === "::1") inwardNames.push(name);
}
const refusal = "the host leads to an address that webhooks may not go to";
const spelled = "the host of a webhook URL leads to a private, loopback, link-local or reserved address";

describe("a name that resolves to a private address after it was checked", () => {
  let inner: Server;
  let port: number;
  let connections = 0;

  beforeAll(async () => {
    inner = createServer((socket) => {
      connections += 1;
      socket.destroy();
    });
    // Listens on IPv4 and IPv6, since a name may resolve to either.
    await new Promise<void>((resolve) => inner.listen(0, () => resolve()));
    port = (inner.address() as { port: number }).port;
  });
  afterEach(() => expect(connections, "connections to the inner server").toBe(0));
  afterAll(() => new Promise((resolve) => inner.close(resolve)));

  test("localhost is one of the names tried here", () => expect(inwardNames).toContain("localhost"));

  test.each(inwardNames)("is not connected to: %s", async (name) => {
    const sender = createWebhookSender({
      secrets: [secret],
      allow: parseAllowances("127.0.0.0/8 ::1 example.com"),
      deadlineMs,
      clock: machineClock,
    });
    try {
      const answer = await sender.send({ id: "a", url: `https://${name}:${port}/`, body: "{}" });
      // The name itself is refused as it is spelled, before it is looked up.
      const error = name === "localhost" ? spelled : refusal;
      expect(answer).toMatchObject({ status: null, error, response: null });
    } finally {
      sender.close();
    }
  });

  test.each([
    ["http://localhost:PORT/", "a webhook URL must be https"],
    ["https://127.0.0.1:PORT/", "the host of a webhook URL leads to a private"],
    ["https://0x7f.1:PORT/", "an address must be written as four decimal numbers"],
    ["https://[::ffff:127.0.0.1]:PORT/", "the host of a webhook URL leads to a private"],
  ])("a URL that is no longer allowed, %s, is not connected to either", async (url, error) => {
    const sender = createWebhookSender({
      secrets: [secret],
      allow: parseAllowances(""),
      deadlineMs,
      clock: machineClock,
    });
    const answer = await sender.send({ id: "a", url: url.replace("PORT", `${port}`), body: "{}" });
    sender.close();
    expect(answer.status).toBeNull();
    expect(answer.error).toContain(error);
  });

  test("a URL that an API accepted is refused by the worker, and the owner can read the reason", async () => {
    const receiver = await Receiver.start();
    const stack = await TestStack.start({
      models: ["echo-int64"],
      env: { WEBHOOK_SECRET: secret, WEBHOOK_ALLOW_HOSTS: "localhost 127.0.0.1" },
      workerEnv: { WEBHOOK_ALLOW_HOSTS: "127.0.0.1", WEBHOOK_RETRY_SCHEDULE: "0.1,0.1" },
    });
    try {
      const submit = (url: string) => stack.submit("echo-int64", { x: [[1, 2, 3]] }, { webhook: { url } });
      const { id } = await submit(`https://localhost:${port}/`);
      const delivery = await eventually(async () => {
        const [found] = (await stack.get(`/v1/predictions/${id}/deliveries`)).body.data;
        expect(found.status).toBe("failed");
        return found;
      });
      expect(delivery.attempts.map(({ error }: { error: string }) => error)).toEqual([spelled, spelled, spelled]);
      const good = await submit(receiver.url("/"));
      expect(verified(secret, (await receiver.received("/"))[0] as never).data.id).toBe(good.id);
    } finally {
      await stack.close();
      await receiver.close();
    }
  });
});
