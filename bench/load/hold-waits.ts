import { type Connection, openConnection } from "./connection.js";
import { changing, type HoldReport, type HoldSpec } from "./load-spec.js";
import { latencyOf } from "./statistics.js";

/** Below 2^24, so that float32 tells the numbers apart and no prediction is joined to another. */
const firstNumber = 10_000_000;
const submitters = 64;
/** Number of waits opened concurrently. */
const openers = 100;

interface Answer {
  status: number;
  body: Buffer;
  arrivedAt: number;
}

/** Submits predictions with successive due times, waits for all of them at once and times the answers. */
export async function holdWaits(spec: HoldSpec): Promise<HoldReport> {
  const ids = await submitAll(spec);
  const clients: Connection[] = [];
  try {
    const answers: Promise<Answer>[] = [];
    await shared(openers, spec.waits, async (i) => {
      const ask = await openClient(spec, clients);
      answers[i] = ask(requestText(spec, "GET", `/v1/predictions/${ids[i]}?wait=60`, ""));
    });
    if (Date.now() > spec.firstDueAt) throw new Error("results came before all waits were open");
    const finishedAts: number[] = [];
    const delaysMs = new Float64Array(spec.waits);
    for (const [i, { arrivedAt, body }] of (await Promise.all(answers)).entries()) {
      const { finished_at: finishedAt, status } = JSON.parse(body.toString()) as Record<string, string>;
      if (status !== "succeeded") throw new Error(`an awaited prediction ended as ${status}`);
      finishedAts.push(Date.parse(finishedAt as string));
      delaysMs[i] = arrivedAt - Date.parse(finishedAt as string);
    }
    finishedAts.sort((a, b) => a - b);
    const spanMs = (finishedAts.at(-1) as number) - (finishedAts[0] as number);
    return { latency: latencyOf(delaysMs), finishedPerSecond: ((spec.waits - 1) * 1000) / spanMs };
  } finally {
    for (const client of clients) client.close();
  }
}

async function submitAll(spec: HoldSpec): Promise<string[]> {
  const ids: string[] = [];
  const clients: Connection[] = [];
  const asks = await Promise.all(Array.from({ length: submitters }, () => openClient(spec, clients)));
  await shared(submitters, spec.waits, async (i, lane) => {
    const dueAt = spec.firstDueAt + (i * 1000) / spec.duePerSecond;
    const delayMs = Math.round(dueAt - Date.now());
    if (delayMs <= 0) throw new Error("the submissions were too slow for the pace of the due times");
    const text = spec.body.replace(changing, String(firstNumber + i));
    const body = `${text.slice(0, -1)},"delay_ms":${delayMs}}`;
    const answer = await (asks[lane] as Ask)(requestText(spec, "POST", spec.path, body));
    if (answer.status !== 202) throw new Error(`answered ${answer.status}: ${answer.body}`);
    ids[i] = (JSON.parse(answer.body.toString()) as { id: string }).id;
  });
  for (const client of clients) client.close();
  return ids;
}

type Ask = (request: string) => Promise<Answer>;

async function openClient(spec: HoldSpec, clients: Connection[]): Promise<Ask> {
  let settle: { resolve(answer: Answer): void; reject(fault: Error): void } | null = null;
  const connection = await openConnection(
    spec.port,
    (status, body) => settle?.resolve({ status, body: Buffer.from(body), arrivedAt: Date.now() }),
    (reason) => settle?.reject(new Error(reason)),
  );
  clients.push(connection);
  return (request) => {
    const answer = new Promise<Answer>((resolve, reject) => {
      settle = { resolve, reject };
    });
    answer.catch(() => undefined);
    connection.send(Buffer.from(request));
    return answer;
  };
}

/** Runs `count` tasks, `lanes` at a time. */
async function shared(lanes: number, count: number, act: (i: number, lane: number) => Promise<void>): Promise<void> {
  let next = 0;
  const work = async (_: unknown, lane: number) => {
    while (next < count) await act(next++, lane);
  };
  await Promise.all(Array.from({ length: lanes }, work));
}

function requestText(spec: HoldSpec, method: string, path: string, body: string): string {
  const headers = {
    host: `127.0.0.1:${spec.port}`,
    ...(body !== "" && { "content-type": "application/json", "content-length": Buffer.byteLength(body) }),
    ...spec.headers,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n${body}`;
}
