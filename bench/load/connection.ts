import { connect, type Socket } from "node:net";

/** One keep-alive HTTP connection with one request at a time. */
export interface Connection {
  /** Sends a whole request; the answer goes to `onAnswer`. */
  send(request: Buffer): void;
  close(): void;
}

const headEnd = Buffer.from("\r\n\r\n");

/**
 * Opens a connection to 127.0.0.1 that reads the minimum of each answer: its status and its Content-Length, which is
 * required. Calls `onEnd` when the connection breaks.
 */
export function openConnection(
  port: number,
  onAnswer: (status: number, body: Buffer) => void,
  onEnd: (reason: string) => void,
): Promise<Connection> {
  let kept: Buffer[] = [];
  let have = 0;
  let need = 0;
  let closed = false;

  const receive = (chunk: Buffer) => {
    kept.push(chunk);
    have += chunk.length;
    // Joined only once complete, since a large answer comes in hundreds of chunks.
    if (have < need) return;
    const buffer = kept.length === 1 ? chunk : Buffer.concat(kept, have);
    kept = [buffer];
    const end = buffer.indexOf(headEnd);
    if (end < 0) return;
    const head = buffer.toString("latin1", 0, end);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (length === undefined) {
      socket.destroy(new Error(`an answer without Content-Length: ${head}`));
      return;
    }
    need = end + 4 + Number(length);
    if (have < need) return;
    const body = buffer.subarray(end + 4, need);
    kept = [];
    have = 0;
    need = 0;
    onAnswer(Number(head.slice(9, 12)), body);
  };

  const socket: Socket = connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("data", receive);
  return new Promise((resolve, reject) => {
    socket.once("error", (error) => {
      reject(error);
      if (!closed) onEnd(error.message);
    });
    socket.once("close", () => {
      if (!closed) onEnd("the server closed the connection");
    });
    socket.once("connect", () =>
      resolve({
        send: (request) => void socket.write(request),
        close() {
          closed = true;
          socket.destroy();
        },
      }),
    );
  });
}
