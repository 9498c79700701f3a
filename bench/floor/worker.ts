import { Worker } from "bullmq";
import { Redis } from "ioredis";
import { endOnSigterm, floorSettings } from "./settings.js";

/** The floor of a worker: takes a job and completes it. */
const { prefix, queue, redisUrl } = floorSettings();
const worker = new Worker(queue, async () => "succeeded", {
  connection: new Redis(redisUrl, { maxRetriesPerRequest: null }),
  prefix,
  concurrency: 100,
  removeOnComplete: { count: 1000 },
  removeOnFail: { count: 1000 },
});
worker.on("error", (error) => process.stderr.write(`${error.message}\n`));
await worker.waitUntilReady();
process.stdout.write(`${JSON.stringify({ message: "worker ready" })}\n`);
endOnSigterm();
