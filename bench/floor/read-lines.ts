import { type AddressInfo, createServer } from "node:net";
import { endOnSigterm } from "./settings.js";

/** The floor of reading lines of JSON from a connection: parses each, and answers with their number. */
const server = createServer({ allowHalfOpen: true }, (socket) => {
  let rest = "";
  let lines = 0;
  // The fastest way to split: each piece is decoded at once, and lines are slices of it.
  socket.setEncoding("utf8");
  socket.on("data", (text: string) => {
    const parts = (rest + text).split("\n");
    rest = parts.pop() as string;
    for (const part of parts) JSON.parse(part);
    lines += parts.length;
  });
  socket.on("end", () => socket.end(String(lines)));
});
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ message: "api ready", port })}\n`);
});
endOnSigterm();
