import { webhookBodyStart } from "../../predictions/delivery.js";
import type { RedisClient } from "../../redis/connect-redis.js";
import type { ModelKeys } from "../../redis/keys.js";
import { defineScript } from "../lua/define-script.js";
import { answers, bytes, number, text } from "../lua/fields.js";
import type { BatchEndSettings } from "./cancel-batch.js";

const script = defineScript({
  name: "millraceFinishChunk",
  file: "batches/finish-chunk",
  keys: {
    batch: text("The batch."),
    chunks: text("Inputs by chunk."),
    results: text("Outputs by chunk."),
    failed: text("Failed inputs by chunk."),
  },
  fields: {
    id: text("The batch's id."),
    number: number("The chunk's number."),
    token: text("The lock token of the chunk's job."),
    outputs: bytes("The chunk's outputs."),
    succeeded: number("Lines that succeeded."),
    failed: number("Lines that failed."),
    failedInputs: bytes("Inputs of the failed lines; empty without any."),
    nowMs: number("Time of the end."),
    base: text("Prefix of the model's own keys."),
    queue: text("Prefix of the keys of the model's queue of chunks."),
    resultTtlMs: number("The result time."),
    webhookQueue: text("Prefix of the keys of the model's queue of deliveries."),
    noticeChannel: text("Prefix of the APIs' notice channels; an API's id follows."),
    bodyStart: text("The body of the webhook up to its data."),
  },
  answer: answers<ChunkOutcome>("What became of the outputs."),
  whenFull: true,
});

export interface ChunkFinish {
  id: string;
  number: number;
  token: string;
  /** Chunks of `bulk-chunk.ts`: the outputs, and the inputs of failed lines (null without any). */
  outputs: Buffer;
  failedInputs: Buffer | null;
  succeeded: number;
  failed: number;
}

/**
 * `written`, `ended batch`: done now; `done`: written before; `ended`: the batch was final; `lost`: the job's lock has
 * passed to another worker. The last three write nothing.
 */
export type ChunkOutcome = "written" | "ended batch" | "done" | "ended" | "lost";

/** Writes a chunk's outputs and, with the last chunk, ends the batch. */
export async function finishChunk(
  redis: RedisClient,
  keys: ModelKeys,
  finish: ChunkFinish,
  { channelPrefix, resultTtlMs }: BatchEndSettings,
  nowMs: number,
): Promise<ChunkOutcome> {
  const { failed, failedInputs, id, number, outputs, succeeded, token } = finish;
  return script.run(redis, {
    keys: {
      batch: keys.batch(id),
      chunks: keys.batchChunks(id),
      results: keys.batchResults(id),
      failed: keys.batchFailed(id),
    },
    fields: {
      id,
      number,
      token,
      outputs,
      succeeded,
      failed,
      failedInputs: failedInputs ?? "",
      nowMs,
      base: keys.base,
      queue: keys.batchQueue,
      resultTtlMs,
      webhookQueue: keys.webhookQueue,
      noticeChannel: channelPrefix,
      bodyStart: webhookBodyStart("batch.completed", nowMs),
    },
  });
}
