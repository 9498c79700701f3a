import { ServiceError } from "@millrace/shared/service/errors.js";
import { type Request, type RequestHandler, type Response, Router } from "express";
import type { RateLimits } from "../access/rate-limits.js";
import { onlyQuery, preferredWait, prefersAsync, waitMsOf } from "../http/http-preferences.js";
import { bytesBody } from "../http/read-body.js";
import { assertUtf8, type JsonBodyLimits } from "../http/read-json.js";
import { sendJson, traceparentOf, whenGone } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import type { KnownModel } from "../models/model-directory.js";
import { awaitPrediction } from "../predictions/await-end.js";
import { modelOfId } from "../predictions/look-up-prediction.js";
import { idempotencyKeyOf, parseSubmission, type Submission } from "../predictions/submission.js";
import { markJoined, type SubmitDependencies, submitPrediction } from "../predictions/submit-prediction.js";
import { keptForm, requestedForm } from "../tensors/infer-answer.js";
import { type InferRequest, inferenceHeaderBytes, readInferRequest } from "../tensors/infer-request.js";
import { packInferInputs } from "../tensors/input-tensors.js";
import { sendInference } from "../tensors/send-answer.js";

interface InferDependencies extends SubmitDependencies, JsonBodyLimits {
  maxTensorBytes: number;
  syncTimeoutMs: number;
  limits: RateLimits | null;
  maySubmit: readonly RequestHandler[];
}

/** The rows that a request counts as: its largest first dimension, along which inputs are joined. */
const rowsOf = ({ inputs }: InferRequest): number =>
  Math.max(1, ...inputs.map(({ shape }) => shape[0] ?? 1).filter((rows) => Number.isSafeInteger(rows)));

/**
 * `POST /v2/models/{model}[/versions/{version}]/infer`: through the same queue as any prediction. It answers with the
 * result, or with the prediction where `Prefer: respond-async` asks for that.
 */
export function inferRoutes(deps: InferDependencies): Router {
  const router = Router();
  const before = [...deps.maySubmit, bodyReader(deps)];
  resource(router, "/v2/models/:model/infer", {
    post: [...before, (request, response) => infer(deps, request.params, request, response)],
  });
  resource(router, "/v2/models/:model/versions/:version/infer", {
    post: [...before, (request, response) => infer(deps, request.params, request, response)],
  });
  return router;
}

/** The body as bytes whatever type it says it is; a body with binary data may be larger than one of JSON alone. */
const bodyReader = ({ maxBodyBytes, maxTensorBytes }: InferDependencies): RequestHandler =>
  bytesBody((request) => {
    if (inferenceHeaderBytes(request.headers["inference-header-content-length"]) !== null) {
      return { maxBytes: maxTensorBytes, limitName: "MAX_TENSOR_BYTES" };
    }
    assertUtf8(request);
    return { maxBytes: maxBodyBytes, limitName: "MAX_BODY_BYTES" };
  });

async function infer(
  deps: InferDependencies,
  { model: name, version }: { model: string; version?: string },
  request: Request,
  response: Response,
): Promise<void> {
  onlyQuery(request);
  const later = prefersAsync(request);
  const wait = preferredWait(request);
  const preferredMs = waitMsOf(wait, "bad_header");
  const waitMs = later ? preferredMs : deps.syncTimeoutMs;
  const idempotencyKey = idempotencyKeyOf(request);
  const headerBytes = inferenceHeaderBytes(request.headers["inference-header-content-length"]);
  const body: Buffer = request.body;
  const asked = readInferRequest(body, headerBytes, deps);
  if (!later) await expectWorker(deps, name, version);
  const caller = response.locals.caller;
  const { owner } = caller;
  await deps.limits?.rows(caller, rowsOf(asked), response);
  const form = requestedForm(asked);
  const submitted = await submitPrediction(deps, {
    model: name,
    owner,
    submission: submissionOf(asked, version),
    waitMs,
    requestId: response.locals.requestId,
    traceparent: traceparentOf(request.headers.traceparent),
    idempotencyKey,
    // A caller who waits has the form at hand; it must be stored for a result that is fetched later.
    tensors: {
      pack: ({ announcement }) => packInferInputs(asked, announcement),
      rows: rowsOf(asked),
      body,
      said: asked.said,
      form: later ? keptForm(form) : undefined,
    },
  });
  const location = `/v1/predictions/${submitted.id}`;
  response.setHeader("Location", location);
  if (submitted.replayed) response.setHeader("Idempotency-Replayed", "true");
  const gone = whenGone(response);
  const { final, id, waiter } = submitted;
  const latest = final || waitMs === 0 ? submitted : await awaitPrediction(deps, owner, id, waitMs, gone, waiter);
  if (gone.aborted) return;
  if (later)
    response.setHeader("Preference-Applied", wait === undefined ? "respond-async" : `respond-async, wait=${wait}`);
  if (latest.result !== undefined) {
    const model = await modelOfId(deps, submitted.id);
    await sendInference(deps, model, latest.result, form, "application/json", request, response);
  } else if (later) {
    sendJson(response, 202, submitted.joined ? markJoined(latest.json) : latest.json);
  } else {
    const detail = `The prediction was not done within ${deps.syncTimeoutMs / 1000} s. ${location} leads to it.`;
    throw new ServiceError("not_in_time", detail);
  }
}

/** A request's submission but for its input. Throws `invalid_request`. */
function submissionOf(
  { cache, priority, timeoutMs, webhookUrl }: InferRequest,
  version: string | undefined,
): Submission {
  return parseSubmission({
    input: null,
    cache,
    priority,
    expires_in_ms: timeoutMs,
    ...(version !== undefined && { version }),
    ...(webhookUrl !== undefined && { webhook: { url: webhookUrl } }),
  });
}

/** Throws `no_worker` where nobody lives who could answer in time, so that nothing is accepted. */
async function expectWorker(deps: InferDependencies, name: string, version: string | undefined): Promise<void> {
  const isServed = (model: KnownModel | null) =>
    model === null || (version === undefined ? model.workersAlive : (model.workers.get(version) ?? 0)) > 0;
  const known = await deps.directory.find(name);
  // What was unloaded is unknown, which the submission tells.
  const isKnown = version === undefined ? (known?.versions.size ?? 0) > 0 : known?.versions.has(version);
  if (isServed(known) || isKnown !== true) return;
  // One may have come since the last look.
  await deps.directory.refresh();
  if (isServed(await deps.directory.find(name))) return;
  throw new ServiceError("no_worker", "No living worker serves this model.", { retryAfterSeconds: 2 });
}
