import { readFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import type { ExchangeReport, ExchangeSpec } from "./bulk-spec.js";

/**
 * Submits a batch, waits for its end and reads its results, `times` times on one connection. Rejects unless all rows
 * succeed.
 */
export async function exchangeBatch(spec: ExchangeSpec): Promise<ExchangeReport> {
  const body = await readFile(spec.file);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ask = (method: string, path: string, headers: Record<string, string>, bytes?: Buffer) =>
    new Promise<string>((resolve, reject) => {
      const options = {
        agent,
        host: "127.0.0.1",
        port: spec.port,
        method,
        path,
        headers: { ...spec.headers, ...headers },
      };
      const asked = request(options, async (response) => {
        const parts: Buffer[] = [];
        for await (const part of response as AsyncIterable<Buffer>) parts.push(part);
        const text = Buffer.concat(parts).toString();
        if (response.statusCode === 200 || response.statusCode === 202) resolve(text);
        else reject(new Error(`${method} ${path} answered ${response.statusCode}: ${text.slice(0, 1000)}`));
      });
      asked.once("error", reject);
      asked.end(bytes);
    });
  const report: ExchangeReport = { wholeMs: [], acceptedMs: [], finishedMs: [] };
  const head = { "content-type": "application/json", "content-length": String(body.length) };
  try {
    for (let i = 0; i < spec.times; i++) {
      const begun = performance.now();
      const { id } = JSON.parse(await ask("POST", spec.path, head, body)) as { id: string };
      const accepted = performance.now();
      const batch = JSON.parse(await ask("GET", `/v1/batches/${id}?wait=60`, {}));
      const finished = performance.now();
      const results = await ask("GET", `/v1/batches/${id}/results`, { accept: "application/x-ndjson" });
      const ended = performance.now();
      const lines = results.trimEnd().split("\n").length;
      if (batch.status !== "succeeded" || lines !== spec.rows) {
        throw new Error(`a batch of ${spec.rows} is ${batch.status} with ${lines} results`);
      }
      report.wholeMs.push(ended - begun);
      report.acceptedMs.push(accepted - begun);
      report.finishedMs.push(finished - accepted);
    }
    return report;
  } finally {
    agent.destroy();
  }
}
