import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import type { SendReport, SendSpec } from "./bulk-spec.js";

/** Large enough to cost the sender next to nothing, small enough for a steady flow. */
const pieceBytes = 256 * 1024;
const headEnd = "\r\n\r\n";

/** Sends a body at the pace of its reader, and resolves to the answer. */
export async function sendBody(spec: SendSpec): Promise<SendReport> {
  const bytes = await readFile(spec.file);
  const socket = connect({ port: spec.port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
  let over = false;
  // A broken connection counts as no answer, reported as status 0.
  socket.once("error", () => undefined);
  const answer = answerOf(socket, spec.http).finally(() => {
    over = true;
  });
  await once(socket, "connect");
  const firstSentAt = performance.timeOrigin + performance.now();
  socket.write(spec.before);
  for (let i = 0; i <= spec.repeats; i++) {
    const length = i < spec.repeats ? bytes.length : spec.restBytes;
    for (let at = 0; at < length; at += pieceBytes) {
      if (over) break;
      if (!socket.write(bytes.subarray(at, Math.min(length, at + pieceBytes)))) {
        await Promise.race([once(socket, "drain"), answer]);
      }
    }
  }
  if (!spec.http) socket.end();
  const { text, answeredAt } = await answer;
  socket.destroy();
  if (!spec.http) return { firstSentAt, answeredAt, status: 0, body: text };
  const end = text.indexOf(headEnd);
  return { firstSentAt, answeredAt, status: Number(text.slice(9, 12)), body: text.slice(end + headEnd.length) };
}

/** The whole answer, up to its Content-Length or the end of the connection. */
function answerOf(socket: ReturnType<typeof connect>, http: boolean): Promise<{ text: string; answeredAt: number }> {
  return new Promise((resolve) => {
    let text = "";
    const done = () => resolve({ text, answeredAt: performance.timeOrigin + performance.now() });
    socket.on("data", (chunk: Buffer) => {
      text += chunk;
      const end = text.indexOf(headEnd);
      if (!http || end < 0) return;
      const length = /\r\ncontent-length: *(\d+)/i.exec(text.slice(0, end))?.[1];
      if (length !== undefined && Buffer.byteLength(text) >= end + headEnd.length + Number(length)) done();
    });
    socket.once("close", done);
    socket.once("end", done);
  });
}
