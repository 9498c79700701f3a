import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, type SocketServer, secretOf, socketServer, verified } from "../support/http/receiver.js";
import { volume } from "../support/run/volume.js";
import { TestStack } from "../support/stack/stack.js";

const secret = secretOf(5);

describe("many dead receivers", () => {
  let stack: TestStack;
  let healthy: Receiver;
  let hanging: SocketServer[];
  let closed: SocketServer[];

  beforeAll(async () => {
    const servers = (count: number) => Promise.all(Array.from({ length: count }, () => socketServer(() => undefined)));
    hanging = await servers(300);
    closed = await servers(100);
    await Promise.all(closed.map((server) => server.close()));
    healthy = await Receiver.start();
    stack = await TestStack.start({
      models: ["echo-int64"],
      env: { WEBHOOK_SECRET: secret, WEBHOOK_ALLOW_HOSTS: "127.0.0.0/8" },
      workerEnv: { WEBHOOK_RETRY_SCHEDULE: "0,0,0,0,0,0,0,0,0,0" },
      timing: { worker: { deliveryDeadlineMs: 600_000 } },
    });
  });
  afterAll(async () => {
    // Closed first, because a stopping worker waits for hanging tries.
    await Promise.all((hanging ?? []).map((server) => server.close()));
    await stack?.close();
    await healthy?.close();
  });

  const submit = async (url: string): Promise<string> =>
    (await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { webhook: { url } })).id;

  /**
   * Asserts a delivery within 40 s. A hanging try keeps its place for longer than the test, so a blocked delivery would
   * never arrive.
   */
  async function assertDelivered(receiver: Receiver, path: string): Promise<void> {
    const id = await submit(receiver.url(path));
    const [request] = await receiver.received(path, 1, 40_000);
    expect(verified(secret, request as NonNullable<typeof request>).data.id).toBe(id);
  }

  /** Waits until more than 150 receivers hang. */
  const untilManyHang = () =>
    eventually(() => expect(hanging.filter(({ sockets }) => sockets.size > 0).length).toBeGreaterThan(150));

  test("hundreds that hang or are closed, tried repeatedly, delay no receiver that answered before", async () => {
    await assertDelivered(healthy, "/known");
    await Promise.all([...hanging, ...closed].map(({ url }) => submit(url)));
    await untilManyHang();
    for (let i = 0; i < 20; i++) await assertDelivered(healthy, `/known-${i}`);
  });

  test("nor do they block a receiver that is called for the first time", async () => {
    await untilManyHang();
    const newReceiver = await Receiver.start();
    try {
      await assertDelivered(newReceiver, "/new");
    } finally {
      await newReceiver.close();
    }
  });

  test("a thousand hanging hosts and more delay no receiver that answered before", async () => {
    // The hanging receivers of the earlier tests free their places.
    await Promise.all(hanging.splice(0).map((server) => server.close()));
    const allHosts = await socketServer(() => undefined, "0.0.0.0");
    try {
      await assertDelivered(healthy, "/before");
      const hosts = volume(1200, 10_000);
      let next = 0;
      const caller = async () => {
        for (let i = next++; i < hosts; i = next++) {
          await submit(`http://127.1.${i >> 8}.${i & 255}:${allHosts.port}/`);
        }
      };
      const flood = Promise.all(Array.from({ length: 16 }, caller));
      await eventually(() => expect(allHosts.sockets.size).toBeGreaterThan(500), 30_000);
      for (let i = 0; i < 5; i++) await assertDelivered(healthy, `/amid-${i}`);
      await flood;
      for (let i = 0; i < 20; i++) await assertDelivered(healthy, `/after-${i}`);
      expect(allHosts.sockets.size, "hosts that still hang").toBeGreaterThan(500);
    } finally {
      await allHosts.close();
    }
  }, 90_000);
});
