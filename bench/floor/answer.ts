import type { AddressInfo } from "node:net";
import express from "express";
import { endOnSigterm } from "./settings.js";

/** The floor of an API: parses the body and answers with JSON text of a given length. */
const answer = JSON.stringify("x".repeat(Math.max(0, Number(process.env.ANSWER_BYTES) - 2)));
const app = express();
app.disable("x-powered-by");
app.disable("etag");
app.use(express.json());
app.post("/predictions", (_request, response) => {
  response.status(200).type("json").send(answer);
});
const server = app.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ message: "api ready", port })}\n`);
});
server.keepAliveTimeout = 65_000;
endOnSigterm();
