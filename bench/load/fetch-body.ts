import { get, type IncomingMessage } from "node:http";
import type { FetchReport, FetchSpec } from "./bulk-spec.js";

/** More than any line of results. */
const keptBytes = 64 * 1024;

/** Reads a body without a pause and keeps only its last line. */
export async function fetchBody({ headers, path, port }: FetchSpec): Promise<FetchReport> {
  const sentAt = performance.timeOrigin + performance.now();
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get({ host: "127.0.0.1", port, path, headers, agent: false }, resolve).once("error", reject);
  });
  let bytes = 0;
  let tail: Buffer = Buffer.alloc(0);
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    tail = chunk.length >= keptBytes ? chunk : Buffer.concat([tail.subarray(-keptBytes), chunk]);
  }
  const endedAt = performance.timeOrigin + performance.now();
  const end = tail.length > 0 && tail[tail.length - 1] === 0x0a ? tail.length - 1 : tail.length;
  const lastLine = tail.toString("utf8", end > 0 ? tail.lastIndexOf(0x0a, end - 1) + 1 : 0, end);
  return { sentAt, endedAt, status: response.statusCode as number, bytes, lastLine };
}
