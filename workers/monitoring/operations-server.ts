import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Registry } from "prom-client";

const usualPort = 3001;

export interface OperationsServer {
  port: number;
  close(): Promise<void>;
}

/**
 * A worker's own `/health`, `/ready` and `/metrics`, without a key. Without a configured port it takes 3001, or a free
 * port if 3001 is in use.
 */
export async function startOperationsServer(options: {
  port: number | undefined;
  register: Registry;
  ready(): { ready: boolean; [detail: string]: unknown };
  log: Logger;
}): Promise<OperationsServer> {
  const startedAt = Date.now();
  const server = createServer(async (request, response) => {
    const path = request.url?.split("?")[0];
    if (request.method !== "GET" && request.method !== "HEAD")
      return send(response, 405, { status: "method not allowed" });
    if (path === "/health") {
      return send(response, 200, { status: "healthy", uptime_seconds: Math.floor((Date.now() - startedAt) / 1000) });
    }
    if (path === "/ready") {
      const state = options.ready();
      return send(response, state.ready ? 200 : 503, state);
    }
    if (path === "/metrics") {
      response.writeHead(200, { "content-type": options.register.contentType });
      return response.end(await options.register.metrics());
    }
    return send(response, 404, { status: "not found" });
  });
  const host = "0.0.0.0";
  const listen = (port: number) =>
    new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, () => {
        server.off("error", reject);
        resolve();
      });
    });
  try {
    await listen(options.port ?? usualPort);
  } catch (fault) {
    if (options.port !== undefined || (fault as NodeJS.ErrnoException).code !== "EADDRINUSE") throw fault;
    await listen(0);
  }
  const { port } = server.address() as AddressInfo;
  options.log.info("worker endpoints listen", { port });
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}
