import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { Arrivals, Expectation, ReceiverNote } from "./receiver-spec.js";

/** The floor of a webhook receiver: a bare server in a separate process that answers 204. */
let expected: Expectation = { webhooks: 0, timed: false };
let seen = new Set<string>();
let arrivals: Arrivals = { repeats: 0, delaysMs: [] };

const tell = (note: ReceiverNote) => process.send?.(note);

const count = (id: string) => {
  if (seen.has(id)) arrivals.repeats += 1;
  seen.add(id);
  if (seen.size === expected.webhooks) tell({ arrivals });
};

const readDelay = (request: IncomingMessage, done: () => void) => {
  const arrivedAt = Date.now();
  let text = "";
  request.setEncoding("utf8");
  request.on("data", (chunk: string) => {
    text += chunk;
  });
  request.on("end", () => {
    const finishedAt = /"finished_at":"([^"]+)"/.exec(text)?.[1];
    if (finishedAt !== undefined) arrivals.delaysMs.push(arrivedAt - Date.parse(finishedAt));
    done();
  });
};

const server = createServer({ keepAliveTimeout: 65_000 }, (request, response) => {
  const id = String(request.headers["webhook-id"]);
  if (expected.timed) readDelay(request, () => count(id));
  else {
    request.resume();
    count(id);
  }
  response.writeHead(204).end();
});

process.on("message", (expectation: Expectation) => {
  expected = expectation;
  seen = new Set();
  arrivals = { repeats: 0, delaysMs: [] };
  tell({ listening: true });
});
process.on("disconnect", () => process.exit(0));
process.on("SIGINT", () => undefined);
server.listen(0, "127.0.0.1", () => tell({ port: (server.address() as AddressInfo).port }));
