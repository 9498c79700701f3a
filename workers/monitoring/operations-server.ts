import { createServer, type ServerResponse } from "node:http";
import { opensMetrics } from "@millrace/shared/access/metrics-key.js";
import { ConfigError } from "@millrace/shared/config/common-config.js";
import { listenOn } from "@millrace/shared/config/listen.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { Registry } from "prom-client";

const usualPort = 3001;

export interface OperationsServer {
  port: number;
  close(): Promise<void>;
}

/**
 * A worker's own `/health`, `/ready` and `/metrics`; only the last wants a key, `metricsKey`. Without a configured port
 * it takes 3001, or a free port if 3001 is in use. Rejects with a ConfigError where the configured port is taken.
 */
export async function startOperationsServer(options: {
  port: number | undefined;
  host: string;
  /** What `/metrics` wants; undefined: nothing. */
  metricsKey: string | undefined;
  register: Registry;
  ready(): { ready: boolean; [detail: string]: unknown };
  log: Logger;
}): Promise<OperationsServer> {
  const startedAt = performance.now();
  const server = createServer(async (request, response) => {
    const path = request.url?.split("?")[0];
    if (request.method !== "GET" && request.method !== "HEAD")
      return send(response, 405, { status: "method not allowed" });
    if (path === "/health") {
      return send(response, 200, {
        status: "healthy",
        uptime_seconds: Math.floor((performance.now() - startedAt) / 1000),
      });
    }
    if (path === "/ready") {
      const state = options.ready();
      return send(response, state.ready ? 200 : 503, state);
    }
    if (path === "/metrics") {
      if (!opensMetrics(request.headers, options.metricsKey)) {
        response.setHeader("WWW-Authenticate", 'Bearer realm="millrace"');
        return send(response, 401, { status: "METRICS_KEY is missing or wrong" });
      }
      response.writeHead(200, { "content-type": options.register.contentType });
      return response.end(await options.register.metrics());
    }
    return send(response, 404, { status: "not found" });
  });
  const { host } = options;
  const listen = (port: number) => listenOn(server, port, host, { port: "WORKER_PORT", host: "WORKER_HOST" });
  const port = await listen(options.port ?? usualPort).catch((fault: Error) => {
    const isTaken = fault instanceof ConfigError && (fault.cause as NodeJS.ErrnoException).code === "EADDRINUSE";
    if (options.port !== undefined || !isTaken) throw fault;
    return listen(0);
  });
  options.log.info("worker endpoints listen", { host, port });
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
