import { connect, type Socket } from "node:net";

/** One keep-alive HTTP connection that carries one request at a time. */
export interface Connection {
  /** Sends a whole request; resolves to nothing, for the answer comes to `onAnswer`. */
  send(request: Buffer): void;
  close(): void;
}

const headEnd = Buffer.from("\r\n\r\n");

/**
 * Opens a connection to 127.0.0.1 that reads as little as can be of each answer: its status, and its length, which must
 * be told by Content-Length. `onEnd` is called when the connection breaks.
 */
export function openConnection(
  port: number,
  onAnswer: (status: number, body: Buffer) => void,
  onEnd: (reason: string) => void,
): Promise<Connection> {
  let kept: Buffer | null = null;
  let closed = false;

  const receive = (chunk: Buffer) => {
    const buffer = kept === null ? chunk : Buffer.concat([kept, chunk]);
    const end = buffer.indexOf(headEnd);
    if (end < 0) {
      kept = buffer;
      return;
    }
    const head = buffer.toString("latin1", 0, end);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (length === undefined) return socket.destroy(new Error(`an answer without Content-Length: ${head}`));
    const total = end + 4 + Number(length);
    if (buffer.length < total) {
      kept = buffer;
      return;
    }
    kept = null;
    onAnswer(Number(head.slice(9, 12)), buffer.subarray(end + 4, total));
    return;
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
