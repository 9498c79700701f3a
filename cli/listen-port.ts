import { createServer } from "node:net";
import { ConfigError } from "@millrace/shared/config/common-config.js";
import { listenOn } from "@millrace/shared/config/listen.js";

const usualPort = 3000;
const usualWorkerPort = 3001;
const portsTried = 200;

/** The port for an API to start; `chosen`: not set, so that another may be taken in its place. */
export interface ListenPort {
  port: string;
  chosen: boolean;
}

/**
 * `PORT`, else the first free one from 3000. Rejects with a ConfigError where `PORT` is set and taken. A port may be
 * taken a moment later all the same.
 */
export async function findListenPort(env: Record<string, string | undefined>): Promise<ListenPort> {
  const host = env.HOST || "127.0.0.1";
  if (env.PORT) {
    // The API itself tells what is wrong with a text that is no port.
    const port = /^\d{1,5}$/.test(env.PORT) ? Number(env.PORT) : 0;
    if (port > 0 && port < 65_536) await tryListening(port, host);
    return { port: env.PORT, chosen: false };
  }
  const workerPort = Number(env.WORKER_PORT || usualWorkerPort);
  for (let port = usualPort; port < usualPort + portsTried; port++) {
    if (port === workerPort) continue;
    try {
      await tryListening(port, host);
      return { port: `${port}`, chosen: true };
    } catch (fault) {
      if (((fault as Error).cause as NodeJS.ErrnoException | undefined)?.code !== "EADDRINUSE") throw fault;
    }
  }
  throw new ConfigError([`PORT is not set, and ${usualPort} to ${usualPort + portsTried - 1} are taken: set another`]);
}

/** The address of an API for programs on this machine. */
export function apiUrl(host: string | undefined, port: number | string): string {
  const unspecified: Record<string, string> = { "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1" };
  const name = unspecified[host ?? ""] ?? (host as string);
  return `http://${name.includes(":") ? `[${name}]` : name}:${port}`;
}

async function tryListening(port: number, host: string): Promise<void> {
  const server = createServer();
  await listenOn(server, port, host, { port: "PORT", host: "HOST" });
  await new Promise((resolve) => server.close(resolve));
}
