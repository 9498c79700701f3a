import { connect } from "node:net";

/** A server's answer, read from the bare connection. */
export interface RawAnswer {
  /** 0: the connection ended without an answer. */
  status: number;
  headers: Map<string, string>;
  body: string;
  /** Number of answers over the connection. */
  answers: number;
}

export interface RawOptions {
  /** Pieces to send one after another, each after a pause in ms. */
  drip?: { pieces: readonly (string | Buffer)[]; everyMs: number };
  /** Closes the sending side after the bytes (half-close). */
  halfClose?: boolean;
  deadlineMs?: number;
}

/** Sends bytes over a connection of its own and reads until the server closes it or has sent a complete answer. */
export function sendRaw(url: string, bytes: string | Buffer, options: RawOptions = {}): Promise<RawAnswer> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    const socket = connect(Number(port), hostname);
    const timers: NodeJS.Timeout[] = [];
    const settle = () => {
      for (const timer of timers) clearTimeout(timer);
      socket.destroy();
      resolve(parseAnswer(Buffer.concat(pieces)));
    };
    timers.push(
      setTimeout(() => {
        for (const timer of timers) clearTimeout(timer);
        socket.destroy();
        const what = typeof bytes === "string" ? bytes : bytes.toString("latin1");
        reject(new Error(`incomplete answer to ${JSON.stringify(what.slice(0, 200))}`));
      }, options.deadlineMs ?? 30_000),
    );
    // The server may close while the client still sends.
    socket.on("error", () => undefined);
    socket.on("close", settle);
    socket.on("data", (piece) => {
      pieces.push(piece as Buffer);
      if (isWhole(Buffer.concat(pieces))) settle();
    });
    socket.write(bytes);
    options.drip?.pieces.forEach((piece, i) => {
      timers.push(setTimeout(() => socket.writable && socket.write(piece), (i + 1) * (options.drip?.everyMs ?? 0)));
    });
    if (options.halfClose) socket.end();
  });
}

/** Whether the bytes hold a complete answer; informational (1xx) answers are skipped. */
function isWhole(bytes: Buffer): boolean {
  const text = bytes.toString("latin1").replace(/^HTTP\/1\.1 1\d\d [\s\S]*?\r\n\r\n/, "");
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return false;
  if (/^HTTP\/1\.[01] (204|304)/.test(text)) return true;
  const length = /\r\ncontent-length: *(\d+)/i.exec(text.slice(0, end))?.[1];
  return length !== undefined ? text.length - end - 4 >= Number(length) : text.endsWith("\r\n0\r\n\r\n");
}

function parseAnswer(bytes: Buffer): RawAnswer {
  const text = bytes.toString("utf8").replace(/^HTTP\/1\.1 1\d\d [\s\S]*?\r\n\r\n/, "");
  const end = text.indexOf("\r\n\r\n");
  const [statusLine = "", ...lines] = text.slice(0, end < 0 ? 0 : end).split("\r\n");
  const headers = new Map(
    lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
  );
  const answers = text.match(/^HTTP\/1\.[01] [2-5]\d\d /gm)?.length ?? 0;
  return { status: Number(statusLine.split(" ")[1] ?? 0), headers, body: end < 0 ? "" : text.slice(end + 4), answers };
}
