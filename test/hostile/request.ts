import type { RawOptions } from "../support/http/raw-http.js";
import { keys, type Owner } from "../support/stack/stack.js";

/** One hostile request: its name, its bytes, and the expected status. */
export type HostileRow = [name: string, request: string | Buffer, status: number, options?: RawOptions];

export const tree = "intrusion-decision-tree";
export const submitPath = `/v1/models/${tree}/predictions`;
export const batchPath = `/v1/models/${tree}/batches`;

export interface RequestParts {
  as?: Owner | null;
  headers?: readonly string[];
  body?: string | Buffer;
  type?: string | null;
}

/** The bytes of a request; default: alice's key, Content-Length and JSON's type. */
export function wire(method: string, target: string, parts: RequestParts = {}): Buffer {
  const { as = "alice", body, headers = [], type = "application/json" } = parts;
  const lines = [`${method} ${target} HTTP/1.1`, "Host: millrace", "Connection: close"];
  if (as !== null) lines.push(`Authorization: Bearer ${keys[as]}`);
  const bytes = body === undefined ? null : Buffer.from(body as string);
  if (bytes !== null) {
    if (type !== null) lines.push(`Content-Type: ${type}`);
    lines.push(`Content-Length: ${bytes.length}`);
  }
  const head = Buffer.from(`${[...lines, ...headers].join("\r\n")}\r\n\r\n`, "utf8");
  return bytes === null ? head : Buffer.concat([head, bytes]);
}

export const get = (target: string, headers: readonly string[] = []): Buffer => wire("GET", target, { headers });

export const submit = (body: string | Buffer, headers: readonly string[] = [], path = submitPath): Buffer =>
  wire("POST", path, { body, headers });

/** Unchecked header lines, for requests that `wire` cannot build. */
export const lines = (...text: string[]): string => `${text.join("\r\n")}\r\n\r\n`;
