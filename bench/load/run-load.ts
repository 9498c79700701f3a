import { type Connection, openConnection } from "./connection.js";
import { changing, type LoadReport, type LoadSpec } from "./load-spec.js";
import { latencyOf } from "./statistics.js";

const firstNumber = 10_000_000;
let sent = 0;

/** Performs one run. Rejects on an unexpected status or a broken connection. */
export async function runLoad(spec: LoadSpec): Promise<LoadReport> {
  const latenciesMs = new Float64Array(spec.requests);
  let begun = 0;
  let answered = 0;
  let settle: { resolve(): void; reject(fault: Error): void };
  const done = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject };
  });

  const openClient = async (): Promise<{ next(): void; close(): void }> => {
    const { request, at } = requestOf(spec);
    let sentAt = 0;
    const next = () => {
      if (begun === spec.requests) return;
      begun += 1;
      if (at >= 0) request.write(String(firstNumber + sent++), at, "latin1");
      sentAt = performance.now();
      connection.send(request);
    };
    const onAnswer = (status: number, body: Buffer) => {
      latenciesMs[answered] = performance.now() - sentAt;
      if (status !== spec.expectStatus) settle.reject(new Error(`answered ${status}: ${body}`));
      answered += 1;
      if (answered === spec.requests) settle.resolve();
      else next();
    };
    const connection: Connection = await openConnection(spec.port, onAnswer, (reason) => {
      settle.reject(new Error(reason));
    });
    return { next, close: () => connection.close() };
  };

  const clients = await Promise.all(Array.from({ length: spec.connections }, openClient));
  const firstSentAt = performance.timeOrigin + performance.now();
  for (const client of clients) client.next();
  try {
    await done;
    return {
      firstSentAt,
      lastAnsweredAt: performance.timeOrigin + performance.now(),
      latency: latencyOf(latenciesMs),
    };
  } finally {
    for (const client of clients) client.close();
  }
}

/** The request as bytes, and the position of the changing number in it; -1 without one. */
function requestOf(spec: LoadSpec): { request: Buffer; at: number } {
  const jsonBytes = Buffer.byteLength(spec.body);
  const binary = floats(spec.binaryBytes ?? 0);
  const headers = {
    host: `127.0.0.1:${spec.port}`,
    "content-type": binary.length === 0 ? "application/json" : "application/octet-stream",
    "content-length": String(jsonBytes + binary.length),
    ...(binary.length > 0 && { "inference-header-content-length": String(jsonBytes) }),
    ...spec.headers,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const text = `POST ${spec.path} HTTP/1.1\r\n${lines.join("")}\r\n${spec.body}`;
  const start = Buffer.from(text);
  return { request: binary.length === 0 ? start : Buffer.concat([start, binary]), at: start.indexOf(changing) };
}

function floats(bytes: number): Buffer {
  const values = new Float32Array(bytes / 4);
  for (let i = 0; i < values.length; i++) values[i] = (i % 1000) / 7;
  return Buffer.from(values.buffer);
}
