import type { AddressInfo } from "node:net";
import { Queue, QueueEvents } from "bullmq";
import express from "express";
import { Redis } from "ioredis";
import { endOnSigterm, floorSettings } from "./settings.js";

/** The floor of an API in front of BullMQ: parses the body and adds it unchanged as a job. */
const { prefix, queue: name, redisUrl, waiting } = floorSettings();
const connection = new Redis(redisUrl, { maxRetriesPerRequest: null });
const queue = new Queue(name, { connection, prefix, streams: { events: { maxLen: 1000 } } });
const options = { removeOnComplete: { count: 1000 }, removeOnFail: { count: 1000 } };
const app = express();
app.disable("x-powered-by");
app.disable("etag");
app.use(express.json());

if (waiting) {
  const events = new QueueEvents(name, {
    connection: new Redis(redisUrl, { maxRetriesPerRequest: null }),
    prefix,
  });
  await events.waitUntilReady();
  app.post("/predictions", async (request, response) => {
    const job = await queue.add("prediction", request.body, options);
    const result = await job.waitUntilFinished(events, 30_000);
    response.status(200).json({ id: job.id, result });
  });
} else {
  app.post("/predictions", async (request, response) => {
    const job = await queue.add("prediction", request.body, options);
    response.status(202).json({ id: job.id });
  });
}
await queue.waitUntilReady();
const server = app.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ message: "api ready", port })}\n`);
});
server.keepAliveTimeout = 65_000;
endOnSigterm();
