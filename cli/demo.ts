import { sampleOf } from "./start-stack.js";

const models = ["intrusion-random-forest", "intrusion-xgboost", "intrusion-decision-tree"];
const samplesEach = 3;

interface Row {
  model: string;
  sample: string;
  label: string;
  confidence: string;
  ms: string;
  verdict: string;
}

/**
 * Runs predictions on the shipped samples and prints what came back. Resolves to whether every one succeeded and came
 * out as the sample expects.
 */
export async function runDemo(apiUrl: string, apiKey: string, say: (line: string) => void): Promise<boolean> {
  const rows: Row[] = [];
  for (const model of models) {
    for (let i = 0; i < samplesEach; i++) rows.push(await predict(apiUrl, apiKey, model, i));
  }
  printTable(rows, say);
  const failed = rows.filter((row) => row.verdict !== "ok").length;
  say(failed === 0 ? `All ${rows.length} predictions succeeded.` : `${failed} of ${rows.length} predictions failed.`);
  return failed === 0;
}

async function predict(apiUrl: string, apiKey: string, model: string, index: number): Promise<Row> {
  const sample = await sampleOf(model, index);
  const begun = performance.now();
  const response = await fetch(`${apiUrl}/v1/models/${model}/predictions`, {
    method: "POST",
    headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json", prefer: "wait=30" },
    body: JSON.stringify({ input: sample.input, cache: false }),
  });
  const ms = (performance.now() - begun).toFixed(1);
  const body = (await response.json()) as {
    status?: string | number;
    output?: { label: string; confidence: number };
    detail?: string;
  };
  const expected = (sample.expected as { label: string }).label;
  const label = body.output?.label ?? "";
  const right = response.status === 200 && body.status === "succeeded" && label === expected;
  const verdict = right ? "ok" : `expected ${expected}: ${response.status} ${body.status} ${body.detail ?? ""}`;
  return { model, sample: sample.name, label, confidence: body.output?.confidence.toFixed(4) ?? "", ms, verdict };
}

function printTable(rows: readonly Row[], say: (line: string) => void): void {
  const columns = ["model", "sample", "label", "confidence", "ms", "verdict"] as const;
  const widths = columns.map((column) => Math.max(column.length, ...rows.map((row) => row[column].length)));
  const line = (cells: readonly string[]) => cells.map((cell, i) => cell.padEnd(widths[i] as number)).join("  ");
  say(line(columns));
  say(widths.map((width) => "-".repeat(width)).join("  "));
  for (const row of rows) say(line(columns.map((column) => row[column])));
}
