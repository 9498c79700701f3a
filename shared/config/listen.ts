import type { Server } from "node:net";
import { ConfigError } from "./common-config.js";

/** The settings that an address comes from, for the message of a fault. */
export interface ListenSettings {
  /** Name of the variable of the port. */
  port: string;
  /** Name of the variable of the host; undefined where it cannot be set. */
  host?: string;
}

/**
 * Listens, and resolves to the port. Rejects with a ConfigError that names the variable and the remedy where the port
 * is taken or not allowed, or the host is no address of this machine.
 */
export function listenOn(server: Server, port: number, host: string, settings: ListenSettings): Promise<number> {
  return new Promise((resolve, reject) => {
    const fail = (fault: NodeJS.ErrnoException) => {
      const problem = problemOf(fault, port, host, settings);
      reject(problem === null ? fault : new ConfigError([problem], { cause: fault }));
    };
    server.once("error", fail);
    server.listen(port, host, () => {
      server.off("error", fail);
      resolve((server.address() as { port: number }).port);
    });
  });
}

function problemOf({ code }: NodeJS.ErrnoException, port: number, host: string, settings: ListenSettings) {
  const other = `set ${settings.port} to another port`;
  switch (code) {
    case "EADDRINUSE":
      return `${settings.port} ${port} is taken by another process on ${host}: stop that process, or ${other}`;
    case "EACCES":
      return `${settings.port} ${port} is not allowed to this user: ${other}, such as one from 1024`;
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
    case "EAI_AGAIN":
    case "EINVAL":
      return settings.host === undefined ? null : `${settings.host} ${host} is not an address of this machine`;
    default:
      return null;
  }
}
