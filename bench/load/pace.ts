import type { PaceReport, PaceSpec } from "./bulk-spec.js";
import { type Connection, openConnection } from "./connection.js";
import { changing } from "./load-spec.js";

const lookEveryMs = 1;
/** Opened in advance; more are opened when all are busy. */
const connections = 64;
const firstNumber = 10_000_000;
let sent = 0;

interface Client {
  send(i: number): void;
  close(): void;
}

/**
 * Sends single predictions at their due times, whether or not earlier ones are answered, and times each from its due
 * time. `stop` ends the sending; the report follows when all are answered. Rejects on any status other than 200.
 */
export function pace(spec: PaceSpec): { stop(): void; report: Promise<PaceReport> } {
  let stopAt = Number.POSITIVE_INFINITY;
  const report = run(spec, () => stopAt);
  return {
    stop() {
      stopAt = performance.now();
    },
    report,
  };
}

async function run(spec: PaceSpec, stopAt: () => number): Promise<PaceReport> {
  const report: PaceReport = { dueAt: [], latencyMs: [] };
  const clients: Client[] = [];
  const idle: Client[] = [];
  const due: number[] = [];
  let answered = 0;
  let settle: { resolve(): void; reject(fault: Error): void };
  const done = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject };
  });
  const openClient = async (): Promise<Client> => {
    let current = -1;
    const connection: Connection = await openConnection(
      spec.port,
      (status, body) => {
        report.latencyMs[current] = performance.now() - (due[current] as number);
        if (status !== 200) settle.reject(new Error(`answered ${status}: ${body}`));
        answered += 1;
        idle.push(client);
      },
      (reason) => settle.reject(new Error(reason)),
    );
    const client = {
      send(i: number) {
        current = i;
        connection.send(Buffer.from(requestText(spec)));
      },
      close: () => connection.close(),
    };
    clients.push(client);
    return client;
  };
  idle.push(...(await Promise.all(Array.from({ length: connections }, openClient))));
  const begun = performance.now();
  const sendNext = (at: number) => {
    const i = due.push(at) - 1;
    report.dueAt.push(performance.timeOrigin + at);
    const client = idle.shift();
    if (client !== undefined) client.send(i);
    else openClient().then((opened) => opened.send(i), settle.reject);
  };
  const timer = setInterval(() => {
    for (;;) {
      const at = begun + (due.length * 1000) / spec.perSecond;
      if (at > stopAt()) {
        if (answered === due.length) settle.resolve();
        return;
      }
      if (at > performance.now()) return;
      sendNext(at);
    }
  }, lookEveryMs);
  try {
    await done;
    return report;
  } finally {
    clearInterval(timer);
    for (const client of clients) client.close();
  }
}

function requestText(spec: PaceSpec): string {
  const body = spec.body.replace(changing, String(firstNumber + (sent++ % 6_000_000)));
  const headers = {
    host: `127.0.0.1:${spec.port}`,
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
    ...spec.headers,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST ${spec.path} HTTP/1.1\r\n${lines.join("")}\r\n${body}`;
}
