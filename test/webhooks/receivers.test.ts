import { readFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, type Responder, secretOf, socketServer, verified } from "../support/http/receiver.js";
import { type Certificates, makeCertificates } from "../support/redis/certificates.js";
import { TestStack } from "../support/stack/stack.js";

const secret = secretOf(4);
/** Deadline of a try in these tests. */
const deadlineMs = 3000;
const MiB = 1024 * 1024;

describe("hostile receivers", () => {
  let stack: TestStack;
  let worker: TestStack["workers"][number];
  let certificates: Certificates | null;
  let healthy: Receiver;
  let rounds = 0;
  const closers: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    certificates = await makeCertificates();
    healthy = await Receiver.start();
    stack = await TestStack.start({
      models: ["echo-int64"],
      workers: 0,
      env: { WEBHOOK_SECRET: secret, WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
      timing: { worker: { deliveryDeadlineMs: deadlineMs } },
    });
    await stack.startWorker({ WORKER_ROLES: "inference" });
    worker = await stack.startWorker({
      WORKER_ROLES: "webhooks",
      WEBHOOK_RETRY_SCHEDULE: "3600",
      ...(certificates !== null && { NODE_EXTRA_CA_CERTS: certificates.authorityFile }),
    });
    await assertHealthyDelivery();
  });
  afterAll(async () => {
    await stack?.close();
    await Promise.all(closers.map((close) => close()));
    await healthy?.close();
    await certificates?.remove();
  });

  async function startReceiver(answer: Responder, tls?: { key: string; cert: string }): Promise<Receiver> {
    const receiver = await Receiver.start(answer, tls);
    closers.push(() => receiver.close());
    return receiver;
  }

  async function startSocketServer(act: (socket: Socket) => void): Promise<string> {
    const server = await socketServer(act);
    closers.push(() => server.close());
    return server.url;
  }

  const submit = async (url: string): Promise<string> =>
    (await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { webhook: { url } })).id;

  /** Waits for the first attempt of a prediction's only delivery. */
  const firstAttempt = (id: string, withinMs: number) =>
    eventually(async () => {
      const [delivery] = (await stack.get(`/v1/predictions/${id}/deliveries`)).body.data;
      expect(delivery.attempts.length).toBeGreaterThan(0);
      return { status: delivery.status, attempt: delivery.attempts[0] };
    }, withinMs);

  /** Asserts a delivery to the healthy receiver; resolves to its time (ms since the epoch). */
  async function assertHealthyDelivery(): Promise<number> {
    const path = `/healthy-${++rounds}`;
    const id = await submit(healthy.url(path));
    const [request] = await healthy.received(path);
    expect(verified(secret, request as NonNullable<typeof request>).data.id).toBe(id);
    return (request as NonNullable<typeof request>).at;
  }

  /** Asserts that a delivery fails with an error without addresses, while the healthy receiver gets its own. */
  async function assertFailedAttempt(url: string, error: RegExp, withinMs = 5000) {
    const id = await submit(url);
    const healthyAt = await assertHealthyDelivery();
    const { attempt, status } = await firstAttempt(id, withinMs);
    expect(status).toBe("pending");
    expect(attempt.error).toMatch(error);
    expect(attempt.error).not.toMatch(/\d+\.\d+\.\d+\.\d+|localhost|:\d{2,5}\b|\/|::/);
    return { ...attempt, healthyAt };
  }

  const residentBytes = (): number =>
    Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${worker.pid}/status`, "utf8"))?.[1]) * 1024;

  test("a receiver that hangs, before or within its answer, is abandoned at the deadline", async () => {
    const mute = await startSocketServer(() => undefined);
    const drips = await startReceiver((_received, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write("."), 200);
      response.once("close", () => clearInterval(timer));
      return null;
    });
    const hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
    const never = await startSocketServer((socket) => {
      const more = () => {
        while (!socket.destroyed && socket.write(hints));
      };
      socket.on("drain", more).once("data", more);
    });
    const attempts = await Promise.all(
      [mute, drips.url("/"), never].map((url) => assertFailedAttempt(url, /^no complete answer within 3 s$/, 15_000)),
    );
    for (const attempt of attempts) {
      expect(attempt.duration_ms).toBeGreaterThan(deadlineMs - 100);
      expect(attempt.healthyAt, "delivered while the other still hung").toBeLessThan(Date.parse(attempt.at));
    }
    await eventually(() => expect(drips.connections).toBe(0));
  }, 30_000);

  test("an endless body is cut off after 4 KiB, and the worker's memory stays flat", async () => {
    let sent = 0;
    const sendEndlessly = (response: ServerResponse) => {
      const chunk = Buffer.alloc(64 * 1024, "x");
      const more = () => {
        while (!response.destroyed && response.write(chunk)) sent += chunk.length;
        if (!response.destroyed) response.once("drain", more);
      };
      more();
    };
    const endless = await startReceiver((_received, response) => {
      response.writeHead(500);
      sendEndlessly(response);
      return null;
    });
    const before = residentBytes();
    let peak = before;
    const timer = setInterval(() => {
      peak = Math.max(peak, residentBytes());
    }, 20);
    try {
      const attempts = await Promise.all(
        Array.from({ length: 4 }, () => assertFailedAttempt(endless.url("/"), /^answered 500$/)),
      );
      for (const attempt of attempts) expect(attempt.response).toBe("x".repeat(4096));
      await eventually(() => expect(endless.connections).toBe(0));
    } finally {
      clearInterval(timer);
    }
    expect(endless.requests).toHaveLength(4);
    expect(sent).toBeLessThan(64 * MiB);
    expect(peak - before).toBeLessThan(64 * MiB);
  });

  test("a compressed body is stored as received, never unpacked", async () => {
    const packed = gzipSync(Buffer.alloc(200 * MiB, "unpacked "));
    const bomb = await startReceiver(() => ({ status: 500, headers: { "content-encoding": "gzip" }, body: packed }));
    const before = residentBytes();
    const attempt = await assertFailedAttempt(bomb.url("/"), /^answered 500$/);
    expect(bomb.requests[0]?.headers["accept-encoding"]).toBeUndefined();
    expect(attempt.response).not.toContain("unpacked");
    expect(attempt.response).toBe(packed.subarray(0, 4096).toString("utf8"));
    expect(residentBytes() - before).toBeLessThan(64 * MiB);
  });

  test.each<[string, (socket: Socket) => void]>([
    ["resets the connection at once", (socket) => void socket.resetAndDestroy()],
    ["resets it after the request", (socket) => void socket.once("data", () => socket.resetAndDestroy())],
    ["closes without a word", (socket) => void socket.once("data", () => socket.end())],
    ["does not speak HTTP", (socket) => void socket.once("data", () => socket.write("SSH-2.0-OpenSSH_9.9\r\n"))],
    [
      "sends endless headers",
      (socket) => void socket.once("data", () => socket.write(`HTTP/1.1 200 OK\r\n${"a: b\r\n".repeat(50_000)}`)),
    ],
  ])("a receiver that %s is a failed attempt", async (_what, act) => {
    await assertFailedAttempt(await startSocketServer(act), /^the connection failed( \(\w+\))?$/);
  });

  test.each([301, 302, 303, 307, 308])("a redirect (%i) to a private address is not followed", async (status) => {
    const inner = await startReceiver(() => ({ status: 200 }));
    const redirects = await startReceiver(() => ({ status, headers: { location: inner.url("/secrets") } }));
    await assertFailedAttempt(redirects.url("/"), new RegExp(`^answered ${status}$`));
    expect(redirects.requests).toHaveLength(1);
    expect([inner.requests.length, inner.connections]).toEqual([0, 0]);
  });

  test("no webhook goes to an expired or self-signed certificate, but one does to a valid one", async (context) => {
    if (certificates === null) return context.skip("openssl is not installed");
    const { expired, selfSigned, valid } = certificates;
    const trusted = await startReceiver(() => ({ status: 200 }), valid);
    const id = await submit(trusted.url("/"));
    expect(verified(secret, (await trusted.received("/"))[0] as never).data.id).toBe(id);
    for (const [certificate, error] of [
      [expired, /^the connection failed \(CERT_HAS_EXPIRED\)$/],
      [selfSigned, /^the connection failed \(DEPTH_ZERO_SELF_SIGNED_CERT\)$/],
    ] as const) {
      const receiver = await startReceiver(() => ({ status: 200 }), certificate);
      await assertFailedAttempt(receiver.url("/"), error);
      expect(receiver.requests).toEqual([]);
    }
  });
});
