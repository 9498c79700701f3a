import { createServer, type RequestListener } from "node:http";
import type { Socket } from "node:net";
import { listenOn } from "@millrace/shared/config/listen.js";
import { hardenedOptions, hardenServer } from "./harden-server.js";

export interface ServeOptions {
  port: number;
  host: string;
  /** For what is being answered when it closes. */
  shutdownGraceMs: number;
  /** Called when no new connection is taken any more; ends the waits that would hold up the end. */
  onClosing(): void;
}

const closeIdleEveryMs = 50;

/**
 * Listens, and resolves to the port and to what ends it: it answers what has begun, then closes. Rejects with a
 * ConfigError where it cannot listen there.
 */
export async function serve(
  listener: RequestListener,
  { host, onClosing, port, shutdownGraceMs }: ServeOptions,
): Promise<{ port: number; close(): Promise<void> }> {
  const server = createServer(hardenedOptions, listener);
  hardenServer(server);
  // Clients open connections ahead, which are not idle to Node until their first request.
  const unused = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    unused.add(socket);
    socket.once("close", () => unused.delete(socket));
  });
  server.on("request", ({ socket }) => unused.delete(socket));
  const listening = await listenOn(server, port, host, { port: "PORT", host: "HOST" });
  return {
    port: listening,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      onClosing();
      // A client that keeps its connection would hold up the end, once it has its answer.
      const idle = setInterval(() => {
        server.closeIdleConnections();
        for (const socket of unused) socket.destroy();
      }, closeIdleEveryMs);
      const grace = setTimeout(() => server.closeAllConnections(), shutdownGraceMs);
      await closed;
      clearTimeout(grace);
      clearInterval(idle);
    },
  };
}
