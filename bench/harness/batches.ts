import type { FetchReport, SendReport, SendSpec } from "../load/bulk-spec.js";
import type { FlowFiles, FlowForm } from "./flows.js";
import type { Load } from "./start-load.js";
import type { Millrace } from "./start-millrace.js";

/** The model for whole tables; its own run time is negligible. */
export const tree = "intrusion-decision-tree";

export const batchesPath = (on: Millrace): string => on.path.replace(/predictions$/, "batches");

const contentTypes = { ndjson: "application/x-ndjson", objects: "application/x-ndjson", csv: "text/csv" };

/** The parts of a file to send for `rows` flows. */
export function repeated(
  flows: FlowFiles,
  form: FlowForm,
  rows: number,
): Pick<SendSpec, "file" | "repeats" | "restBytes"> {
  const { ends, file } = flows.form(form);
  const rest = rows % flows.count;
  return { file, repeats: Math.floor(rows / flows.count), restBytes: rest === 0 ? 0 : (ends[rest - 1] as number) };
}

/** An upload answered with 202. */
export interface Upload extends Pick<SendReport, "firstSentAt" | "answeredAt"> {
  id: string;
  acceptedPerSecond: number;
}

/** Uploads `rows` flows as a batch. */
export async function uploadBatch(
  load: Load,
  on: Millrace,
  flows: FlowFiles,
  form: Exclude<FlowForm, "packed">,
  rows: number,
): Promise<Upload> {
  const { file, repeats, restBytes } = repeated(flows, form, rows);
  const begin = form === "csv" ? flows.csvHeader : "";
  const length = begin.length + repeats * (flows.form(form).ends.at(-1) as number) + restBytes;
  const headers = {
    host: `127.0.0.1:${on.port}`,
    ...on.headers,
    "content-type": contentTypes[form],
    "content-length": String(length),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const before = `POST ${batchesPath(on)} HTTP/1.1\r\n${lines.join("")}\r\n${begin}`;
  const sent = await load.send({ port: on.port, http: true, before, file, repeats, restBytes });
  if (sent.status !== 202) throw new Error(`a batch was answered ${sent.status}: ${sent.body}`);
  const { answeredAt, firstSentAt } = sent;
  const { id } = JSON.parse(sent.body) as { id: string };
  return { id, answeredAt, firstSentAt, acceptedPerSecond: (rows * 1000) / (answeredAt - firstSentAt) };
}

/** Waits for the end of a batch, all of whose rows must succeed; resolves to its time, in ms since the epoch. */
export async function batchFinished(on: Millrace, id: string, rows: number): Promise<number> {
  for (;;) {
    const response = await fetch(`http://127.0.0.1:${on.port}/v1/batches/${id}?wait=60`, { headers: on.headers });
    // A single late answer of Redis does not end the batch.
    if (response.status === 503) continue;
    const batch = (await response.json()) as {
      counts: { succeeded: number };
      finished_at: string | null;
      status: string;
    };
    if (response.status !== 200) throw new Error(`a batch that was accepted is ${response.status}`);
    if (batch.finished_at === null) continue;
    if (batch.status !== "succeeded" || batch.counts.succeeded !== rows) {
      throw new Error(`a batch of ${rows} rows ended as ${batch.status} with ${batch.counts.succeeded}`);
    }
    return Date.parse(batch.finished_at);
  }
}

/** Reads all results of a batch as NDJSON. */
export async function readBack(
  load: Load,
  on: Millrace,
  id: string,
  rows: number,
): Promise<FetchReport & { rowsPerSecond: number }> {
  const headers = { ...on.headers, accept: "application/x-ndjson" };
  const read = await load.fetch({ port: on.port, path: `/v1/batches/${id}/results`, headers });
  const last = read.status === 200 ? (JSON.parse(read.lastLine) as { index: number; status: string }) : null;
  if (last?.index !== rows - 1 || last.status !== "succeeded") {
    throw new Error(`results were answered ${read.status} and end with ${read.lastLine.slice(0, 1000)}`);
  }
  return { ...read, rowsPerSecond: (rows * 1000) / (read.endedAt - read.sentAt) };
}
