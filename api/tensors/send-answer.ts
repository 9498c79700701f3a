import type { PredictionStatus, StoredResult } from "@millrace/shared/predictions/prediction.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { tensorsText } from "@millrace/shared/tensors/packed-json.js";
import type { Request, Response } from "express";
import type { KnownModel, ModelDirectory } from "../models/model-directory.js";
import { type AnswerForm, gathered, inferAnswer } from "./infer-answer.js";
import { resultTensors } from "./result-tensors.js";
import { sendEncoded, streamEncoded } from "./send-encoded.js";

/** The media type in which a prediction is read in the form of the Open Inference Protocol. */
export const inferenceType = "application/vnd.open-inference+json";

/** Tensors of more bytes are streamed as JSON, whose text is several times as long. */
const largestGatheredBytes = 1_000_000;

/**
 * Sends what a final prediction came to in the form of the Open Inference Protocol. Throws `inference_failed`,
 * `not_in_time` or `state_conflict` for one that did not succeed.
 */
export async function sendInference(
  { directory, redis }: { directory: ModelDirectory; redis: RedisClient },
  model: KnownModel,
  result: StoredResult,
  form: AnswerForm,
  jsonType: string,
  request: Request,
  response: Response,
): Promise<void> {
  if (result.status !== "succeeded") throw notSucceeded(result);
  const { version } = JSON.parse(result.json) as { version: string };
  const tensors = await resultTensors(redis, await directory.withVersion(model, version), result);
  const answer = inferAnswer({ name: model.name, version }, form, tensors);
  response.statusCode = 200;
  if (answer.binary.length === 0) {
    response.setHeader("Content-Type", jsonType);
    if (answer.jsonTensorBytes > largestGatheredBytes) await streamEncoded(request, response, answer.json);
    else await sendEncoded(request, response, [await gathered(answer.json)]);
    return;
  }
  const json = await gathered(answer.json);
  response.setHeader("Content-Type", "application/octet-stream");
  response.setHeader("Inference-Header-Content-Length", json.length);
  await sendEncoded(request, response, [json, ...answer.binary]);
}

/** Sends a prediction as `/v1` has it, with the output that is a blob in its place. */
export async function sendWithOutput(
  redis: RedisClient,
  model: KnownModel,
  result: StoredResult,
  request: Request,
  response: Response,
): Promise<void> {
  const tensors = await resultTensors(redis, model, result);
  const mark = '"output":';
  // Nothing of the caller's stands before it.
  const at = result.json.indexOf(`${mark}null`) + mark.length;
  const pieces = function* () {
    yield result.json.slice(0, at);
    yield* tensorsText(tensors);
    yield result.json.slice(at + "null".length);
  };
  response.statusCode = 200;
  response.setHeader("Content-Type", "application/json; charset=utf-8");
  await streamEncoded(request, response, pieces());
}

function notSucceeded({ json, status }: StoredResult): ServiceError {
  const { error } = JSON.parse(json) as { error: { detail: string } | null };
  const detail = error?.detail ?? `The prediction was ${status}.`;
  const codes = { failed: "inference_failed", expired: "not_in_time", canceled: "state_conflict" } as const;
  return new ServiceError(codes[status as Exclude<PredictionStatus, "succeeded"> & keyof typeof codes], detail);
}
