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
    });
  });
  afterAll(async () => {
    await stack?.close();
    await Promise.all((hanging ?? []).map((server) => server.close()));
    await healthy?.close();
  });

  const submit = async (url: string): Promise<string> =>
    (await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { webhook: { url } })).id;

  async function delayOf(receiver: Receiver, path: string): Promise<number> {
    const begun = Date.now();
    const id = await submit(receiver.url(path));
    const [request] = await receiver.received(path, 1, 40_000);
    expect(verified(secret, request as NonNullable<typeof request>).data.id).toBe(id);
    return (request as NonNullable<typeof request>).at - begun;
  }

  /** Enough of them hang for all the places that strangers may take. */
  const untilTheyHang = () =>
    eventually(() => expect(hanging.filter(({ sockets }) => sockets.size > 0).length).toBeGreaterThan(150));

  test("hundreds that hang or are closed, tried again and again, hold up no receiver that has answered before", async () => {
    await delayOf(healthy, "/known");
    await Promise.all([...hanging, ...closed].map(({ url }) => submit(url)));
    await untilTheyHang();
    for (let i = 0; i < 20; i++) expect(await delayOf(healthy, `/known-${i}`)).toBeLessThan(2000);
  });

  test("nor one that is called for the first time", async () => {
    await untilTheyHang();
    const stranger = await Receiver.start();
    try {
      expect(await delayOf(stranger, "/new")).toBeLessThan(2000);
    } finally {
      await stranger.close();
    }
  });

  // A try that hangs holds its place for 10 s, so that is what being held up would take.
  test("thousands of hosts that hang hold up no receiver that has answered before", async () => {
    const everywhere = await socketServer(() => undefined, "0.0.0.0");
    try {
      await delayOf(healthy, "/before");
      const hosts = volume(2500, 10_000);
      let next = 0;
      const caller = async () => {
        for (let i = next++; i < hosts; i = next++) {
          await submit(`http://127.1.${i >> 8}.${i & 255}:${everywhere.port}/`);
        }
      };
      const flood = Promise.all(Array.from({ length: 16 }, caller));
      await eventually(() => expect(everywhere.sockets.size).toBeGreaterThan(500), 30_000);
      for (let i = 0; i < 5; i++) expect(await delayOf(healthy, `/amid-${i}`)).toBeLessThan(9000);
      await flood;
      for (let i = 0; i < 20; i++) expect(await delayOf(healthy, `/after-${i}`)).toBeLessThan(9000);
      expect(everywhere.sockets.size, "and they still hang").toBeGreaterThan(500);
    } finally {
      await everywhere.close();
    }
  }, 90_000);
});
