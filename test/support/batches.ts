import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { expect } from "vitest";
import { type Answer, keys, type Owner, type TestStack } from "./stack/stack.js";

const agent = new Agent({ keepAlive: false });

export const types = { json: "application/json", ndjson: "application/x-ndjson", csv: "text/csv" } as const;

export interface UploadOptions {
  /** Default: NDJSON. */
  type?: string;
  query?: string;
  headers?: Record<string, string>;
  as?: Owner;
  /** Default: the first API. */
  url?: string;
}

/** An upload whose body the test writes at its own pace. */
export interface OpenUpload {
  /** Resolves when the connection takes more. */
  write(bytes: string | Buffer): Promise<void>;
  end(bytes?: string | Buffer): void;
  /** Resolves to the answer, which may come before the end of the body. */
  answer: Promise<Answer>;
  hangUp(): void;
}

/** Begins to send a batch over a connection of its own, chunked unless the headers give a length. */
export function openUpload(stack: TestStack, model: string, options: UploadOptions = {}): OpenUpload {
  const { as = "alice", headers = {}, query = "", type = types.ndjson, url = stack.url } = options;
  const sent = request(`${url}/v1/models/${model}/batches${query}`, {
    method: "POST",
    agent,
    headers: { authorization: `Bearer ${keys[as]}`, "content-type": type, ...headers },
  });
  const answer = once(sent, "response").then(([response]) => answerOf(response as IncomingMessage));
  answer.catch(() => undefined);
  const closed = once(sent, "close").catch(() => undefined);
  // A server that has answered need not read the rest.
  sent.on("error", () => undefined);
  sent.flushHeaders();
  return {
    async write(bytes) {
      if (sent.write(bytes)) return;
      const enough = new AbortController();
      const drained = once(sent, "drain", { signal: enough.signal }).catch(() => undefined);
      await Promise.race([drained, closed, answer.catch(() => undefined)]);
      enough.abort();
    },
    end: (bytes) => void (bytes === undefined ? sent.end() : sent.end(bytes)),
    answer,
    hangUp: () => sent.destroy(),
  };
}

async function answerOf(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  const headers = new Headers();
  for (const [name, value] of Object.entries(response.headers)) headers.set(name, String(value));
  const isJson = /[/+]json/.test(headers.get("content-type") ?? "");
  return { status: response.statusCode as number, headers, body: isJson ? JSON.parse(text) : text };
}

/** Sends a whole batch at once. */
export function upload(
  stack: TestStack,
  model: string,
  body: string | Buffer,
  options: UploadOptions = {},
): Promise<Answer> {
  const length = String(Buffer.byteLength(body));
  const open = openUpload(stack, model, { ...options, headers: { "content-length": length, ...options.headers } });
  open.end(body);
  return open.answer;
}

/** Sends a batch, expects 202 and returns the batch. */
export async function submitBatch(
  stack: TestStack,
  model: string,
  body: string | Buffer,
  options: UploadOptions = {},
  // biome-ignore lint/suspicious/noExplicitAny: see Answer
): Promise<any> {
  const answer = await upload(stack, model, body, options);
  expect(answer.status, JSON.stringify(answer.body)).toBe(202);
  expect(answer.headers.get("location")).toBe(`/v1/batches/${answer.body.id}`);
  return answer.body;
}

/** Waits until a batch is final and returns it. */
// biome-ignore lint/suspicious/noExplicitAny: see Answer
export async function finalBatch(stack: TestStack, id: string): Promise<any> {
  for (let tries = 0; tries < 8; tries++) {
    const { body, status } = await stack.get(`/v1/batches/${id}?wait=20`);
    expect(status, JSON.stringify(body)).toBe(200);
    if (body.finished_at !== null) return body;
  }
  throw new Error(`batch ${id} did not become final`);
}

/** The results of a batch from NDJSON; `query` may give the first index. */
// biome-ignore lint/suspicious/noExplicitAny: see Answer
export async function resultsOf(stack: TestStack, id: string, query = ""): Promise<any[]> {
  const { body, status } = await stack.get(`/v1/batches/${id}/results${query}`);
  expect(status, JSON.stringify(body)).toBe(200);
  return body === ""
    ? []
    : body
        .trimEnd()
        .split("\n")
        .map((line: string) => JSON.parse(line));
}

/** Sends a batch, waits for its end and reads its results. */
export async function runBatch(stack: TestStack, model: string, body: string | Buffer, options: UploadOptions = {}) {
  const { id } = await submitBatch(stack, model, body, options);
  const batch = await finalBatch(stack, id);
  return { id: id as string, batch, results: await resultsOf(stack, id) };
}

export const ndjson = (inputs: readonly unknown[]): string =>
  inputs.map((input) => `${JSON.stringify(input)}\n`).join("");

/**
 * The keys of a model that belong to a batch, whose id may be unknown: those of uploads and batches, without the
 * queue's own and without the index of an owner's batches.
 */
export async function batchKeys(stack: TestStack, model: string, id = "*"): Promise<string[]> {
  const { base } = modelKeys(stack.prefix, model);
  const glob = base.replaceAll(/[[\]?*]/g, "\\$&");
  const found = await (stack.redis as { keys(pattern: string): Promise<string[]> }).keys(`${glob}/*:${id}*`);
  return found.filter((key) => /\/(batch[a-z-]*|interest|webhook-body|deliveries):/.test(key)).sort();
}

/** Counts of a batch that ended without a cancel. */
export const counts = (succeeded: number, failed = 0) => ({
  total: succeeded + failed,
  succeeded,
  failed,
  canceled: 0,
  pending: 0,
});
