import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createSocketServer, type Socket } from "node:net";
import { Webhook } from "standardwebhooks";
import { expect } from "vitest";
import { eventually } from "../eventually.js";

/** A secret in the form of `WEBHOOK_SECRET`; another byte gives another secret. */
export const secretOf = (byte: number): string => `whsec_${Buffer.alloc(24, byte).toString("base64")}`;

/** A received request; `raw` holds the signed bytes of the body. */
export interface Received {
  at: number;
  path: string;
  headers: IncomingHttpHeaders;
  raw: Buffer;
}

export interface Reply {
  status: number;
  headers?: Record<string, string>;
  body?: string | Buffer;
}

/**
 * Returns the reply; null if it writes the response itself, or never answers. `before`: number of earlier requests of
 * the path.
 */
export type Responder = (received: Received, response: ServerResponse, before: number) => Reply | null;

/** A webhook receiver on 127.0.0.1. It keeps all requests and answers by its responder, by default 204. */
export class Receiver {
  readonly requests: Received[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #counts = new Map<string, number>();

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  static async start(
    answer: Responder = () => ({ status: 204 }),
    tls?: { key: string; cert: string },
  ): Promise<Receiver> {
    const server = tls === undefined ? createServer() : createTlsServer(tls);
    const receiver = new Receiver(server as Server);
    server.on("request", async (request, response) => {
      const chunks: Buffer[] = [];
      try {
        for await (const chunk of request) chunks.push(chunk as Buffer);
      } catch {
        return;
      }
      const path = request.url as string;
      const received = { at: Date.now(), path, headers: request.headers, raw: Buffer.concat(chunks) };
      const before = receiver.#counts.get(path) ?? 0;
      receiver.#counts.set(path, before + 1);
      receiver.requests.push(received);
      const reply = answer(received, response, before);
      if (reply !== null) response.writeHead(reply.status, reply.headers).end(reply.body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return receiver;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Number of open connections. */
  get connections(): number {
    return this.#sockets.size;
  }

  /** A URL of this server with that path. */
  url(path: string): string {
    return `${"setSecureContext" in this.#server ? "https" : "http"}://127.0.0.1:${this.port}${path}`;
  }

  to(path: string): Received[] {
    return this.requests.filter((request) => request.path === path);
  }

  /** Waits for `count` requests of a path, and returns them. */
  received(path: string, count = 1, withinMs = 15_000): Promise<Received[]> {
    return eventually(() => {
      const found = this.to(path);
      expect(found.length, `requests of ${path}`).toBeGreaterThanOrEqual(count);
      return found;
    }, withinMs);
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

/** The body of a request as JSON; throws if the `standardwebhooks` package rejects its signature. */
// biome-ignore lint/suspicious/noExplicitAny: the shape depends on the event
export function verified(secret: string, { headers, raw }: Received): any {
  return new Webhook(secret).verify(raw, headers as Record<string, string>);
}

/** A TCP server whose handling of connections a test defines. */
export interface SocketServer {
  port: number;
  url: string;
  /** Open connections. */
  sockets: ReadonlySet<Socket>;
  close(): Promise<void>;
}

/** Listens on 127.0.0.1; with `0.0.0.0` every address of 127.0.0.0/8 reaches it, like many hosts. */
export async function socketServer(act: (socket: Socket) => void, address = "127.0.0.1"): Promise<SocketServer> {
  const sockets = new Set<Socket>();
  const server = createSocketServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => sockets.delete(socket));
    act(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `http://127.0.0.1:${port}/`,
    sockets,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
