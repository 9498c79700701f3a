import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";
import { sampleOf } from "./start-stack.js";

/** The shipped models that the demo runs on. */
export const demoModels = ["intrusion-random-forest", "intrusion-xgboost", "intrusion-decision-tree"];
const samplesEach = 3;

interface Caller {
  apiUrl: string;
  apiKey: string;
}

interface Row {
  model: string;
  way: "single" | "bulk" | "webhook";
  sample: string;
  label: string;
  confidence: string;
  ms: string;
  verdict: string;
}

/** The secret of webhooks, and this machine's address for the deliverers. */
export interface DemoReceiver {
  secret: string;
  host: string;
}

/**
 * Runs predictions on the shipped samples, single, in bulk and, with a receiver, with a webhook, and prints the
 * results. Resolves to whether all succeeded with the expected outputs.
 */
export async function runDemo(
  apiUrl: string,
  apiKey: string,
  called: DemoReceiver | null,
  say: (line: string) => void,
): Promise<boolean> {
  const caller: Caller = { apiUrl, apiKey };
  const rows: Row[] = [];
  for (const model of demoModels) {
    for (let i = 0; i < samplesEach; i++) rows.push(await predict(caller, model, i));
    rows.push(...(await bulk(caller, model)));
  }
  if (called !== null) rows.push(await webhook(caller, demoModels[0] as string, called));
  printTable(rows, say);
  const failed = rows.filter((row) => row.verdict !== "ok").length;
  say(failed === 0 ? `All ${rows.length} predictions succeeded.` : `${failed} of ${rows.length} predictions failed.`);
  return failed === 0;
}

async function predict({ apiKey, apiUrl }: Caller, model: string, index: number): Promise<Row> {
  const sample = await sampleOf(model, index);
  const begun = performance.now();
  const response = await fetch(`${apiUrl}/v1/models/${model}/predictions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json", prefer: "wait=30" },
    body: JSON.stringify({ input: sample.input, cache: false }),
  });
  const body = (await response.json()) as Result;
  return rowOf(model, "single", sample, body, begun);
}

/** All samples of a model as one batch; each row has the time of the whole. */
async function bulk({ apiKey, apiUrl }: Caller, model: string): Promise<Row[]> {
  const samples = await Promise.all(Array.from({ length: samplesEach }, (_, i) => sampleOf(model, i)));
  const authorization = `Bearer ${apiKey}`;
  const begun = performance.now();
  const accepted = await fetch(`${apiUrl}/v1/models/${model}/batches`, {
    method: "POST",
    headers: { authorization, "content-type": "application/json" },
    body: JSON.stringify({ inputs: samples.map((sample) => sample.input) }),
  });
  const { urls } = (await accepted.json()) as { urls?: { self: string; results: string } };
  if (urls === undefined) return samples.map((sample) => rowOf(model, "bulk", sample, { status: "refused" }, begun));
  await fetch(`${apiUrl}${urls.self}?wait=30`, { headers: { authorization } });
  const results = await fetch(`${apiUrl}${urls.results}`, { headers: { authorization } });
  const lines = (await results.text()).trimEnd().split("\n");
  return samples.map((sample, i) => rowOf(model, "bulk", sample, JSON.parse(lines[i] ?? "{}") as Result, begun));
}

/** One prediction with a webhook, which is received here and whose signature is checked. */
async function webhook({ apiKey, apiUrl }: Caller, model: string, called: DemoReceiver): Promise<Row> {
  const sample = await sampleOf(model, 0);
  const receiver = createServer();
  await once(receiver.listen(0, called.host), "listening");
  const { port } = receiver.address() as AddressInfo;
  const told = new Promise<Result>((resolve) => {
    receiver.on("request", async (request, response) => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part as Buffer);
      response.writeHead(204).end();
      try {
        const headers = request.headers as Record<string, string>;
        const { data } = new Webhook(called.secret).verify(Buffer.concat(parts).toString(), headers) as {
          data: Result;
        };
        resolve(data);
      } catch (fault) {
        resolve({ status: "not verified", detail: (fault as Error).message });
      }
    });
    setTimeout(() => resolve({ status: "not received" }), 15_000).unref();
  });
  const begun = performance.now();
  try {
    const response = await fetch(`${apiUrl}/v1/models/${model}/predictions`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" },
      body: JSON.stringify({ input: sample.input, cache: false, webhook: { url: `http://${called.host}:${port}/` } }),
    });
    const accepted = (await response.json()) as Result;
    return rowOf(model, "webhook", sample, response.status === 202 ? await told : accepted, begun);
  } finally {
    receiver.close();
    receiver.closeAllConnections();
  }
}

interface Result {
  status?: string | number;
  output?: { label: string; confidence: number } | null;
  detail?: string;
}

function rowOf(
  model: string,
  way: Row["way"],
  sample: { name: string; expected: unknown },
  { detail = "", output, status }: Result,
  begun: number,
): Row {
  const ms = (performance.now() - begun).toFixed(1);
  const expected = (sample.expected as { label: string }).label;
  const label = output?.label ?? "";
  const verdict = status === "succeeded" && label === expected ? "ok" : `expected ${expected}: ${status} ${detail}`;
  return { model, way, sample: sample.name, label, confidence: output?.confidence.toFixed(4) ?? "", ms, verdict };
}

function printTable(rows: readonly Row[], say: (line: string) => void): void {
  const columns = ["model", "way", "sample", "label", "confidence", "ms", "verdict"] as const;
  const widths = columns.map((column) => Math.max(column.length, ...rows.map((row) => row[column].length)));
  const line = (cells: readonly string[]) => cells.map((cell, i) => cell.padEnd(widths[i] as number)).join("  ");
  say(line(columns));
  say(widths.map((width) => "-".repeat(width)).join("  "));
  for (const row of rows) say(line(columns.map((column) => row[column])));
}
