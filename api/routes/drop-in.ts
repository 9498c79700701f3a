import { cleanText } from "@millrace/shared/packing/pack-text.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type Request, type RequestHandler, type Response, Router } from "express";
import { z } from "zod";
import type { RateLimits } from "../access/rate-limits.js";
import { acceptsJson, onlyQuery, wantsJson } from "../http/http-preferences.js";
import { fileReader } from "../http/read-file.js";
import { jsonBody, parseBody } from "../http/read-json.js";
import { sendJson, whenGone } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { predictFlows } from "../predictions/predict-flows.js";
import { type Classified, type Finished, type PredictNowDependencies, predictNow } from "../predictions/predict-now.js";
import { idempotencyKeyOf } from "../predictions/submission.js";

const flowModels = {
  random_forest: "intrusion-random-forest",
  xgboost: "intrusion-xgboost",
  decision_tree: "intrusion-decision-tree",
} as const;
const flowModel = z.enum(["random_forest", "xgboost", "decision_tree"]).default("random_forest");

const largestBatch = 1000;
const alternatives = 5;
/** One network flow. */
export const flowBody = z.strictObject({ features: z.unknown(), model_name: flowModel }).meta({ id: "Flow" });
/** Up to 1,000 network flows. */
export const batchBody = z
  .strictObject({ flows: z.array(z.unknown()).min(1).max(largestBatch), model_name: flowModel })
  .meta({ id: "Flows" });
/** A text. */
export const queryBody = z.strictObject({ query: z.string() }).meta({ id: "IntentQuery" });

/**
 * The paths that existing clients of the shipped services call: one request, one answer, through the same queue. Each
 * is the model's input in other words, and its output in the words that those clients know.
 */
export function dropInRoutes(
  deps: PredictNowDependencies & {
    maxBodyBytes: number;
    maxBodyKeys: number;
    maxFileBytes: number;
    limits: RateLimits | null;
    maySubmit: readonly RequestHandler[];
    mayReadModels: RequestHandler;
  },
): Router {
  const router = Router();
  const json = [...deps.maySubmit, acceptsJson, wantsJson, jsonBody(deps)];

  /** Predicts and sends what `answer` makes of it, unless the caller has gone. */
  const answered = async (
    request: Request,
    response: Response,
    asked: { model: string; input: unknown; inputPointer: string },
    answer: (finished: Finished) => object,
  ) => {
    onlyQuery(request);
    const gone = whenGone(response);
    const caller = response.locals.caller;
    const { owner } = caller;
    await deps.limits?.rows(caller, 1, response);
    const idempotencyKey = idempotencyKeyOf(request);
    // A key is held against the body as JSON, which bytes are not.
    const input =
      asked.input instanceof Buffer && idempotencyKey !== null ? asked.input.toString("base64") : asked.input;
    const { requestId } = response.locals;
    const finished = await predictNow(deps, { ...asked, input, owner, requestId, idempotencyKey, gone });
    if (!gone.aborted) sendJson(response, 200, JSON.stringify(answer(finished)));
  };

  resource(router, "/predict", {
    post: [
      ...json,
      async (request, response) => {
        const { features, model_name } = parseBody(flowBody, request.body);
        const asked = { model: flowModels[model_name], input: features, inputPointer: "/features" };
        await answered(request, response, asked, ({ finishedAt, id, inferenceMs, output, version }) => {
          const { confidence, label, probabilities } = output as Classified;
          return {
            prediction: label,
            confidence,
            probabilities,
            model_name,
            model_version: version,
            inference_time_ms: inferenceMs,
            timestamp: finishedAt,
            prediction_id: id,
          };
        });
      },
    ],
  });

  resource(router, "/predict/batch", {
    post: [
      ...json,
      async (request, response) => {
        onlyQuery(request);
        const { flows, model_name } = parseBody(batchBody, request.body);
        const gone = whenGone(response);
        const { owner } = response.locals.caller;
        const idempotencyKey = idempotencyKeyOf(request);
        const { requestId } = response.locals;
        const asked = { model: flowModels[model_name], owner, requestId, idempotencyKey, gone };
        await deps.limits?.rows(response.locals.caller, flows.length, response);
        const { inferenceMs, predictions } = await predictFlows(deps, flows, asked);
        if (gone.aborted) return;
        const failed = predictions.filter((row) => "error" in row).length;
        const body = {
          predictions,
          total: predictions.length,
          succeeded: predictions.length - failed,
          failed,
          model_name,
          inference_time_ms: inferenceMs,
          timestamp: new Date(deps.clock.now()).toISOString(),
        };
        sendJson(response, 200, JSON.stringify(body));
      },
    ],
  });

  resource(router, "/predict/intent", {
    post: [
      ...json,
      async (request, response) => {
        const { query } = parseBody(queryBody, request.body);
        const asked = { model: "intent-banking77", input: query, inputPointer: "/query" };
        await answered(request, response, asked, ({ cached, id, inferenceMs, output }) => {
          const { confidence, label, probabilities } = output as Classified;
          const others = Object.entries(probabilities)
            .filter(([intent]) => intent !== label)
            .sort(([, a], [, b]) => b - a)
            .slice(0, alternatives);
          return {
            intent: label,
            confidence,
            alternatives: others.map(([intent, probability]) => ({ intent, confidence: probability })),
            query_length: [...cleanText(query)].length,
            cached,
            inference_time_ms: inferenceMs,
            prediction_id: id,
          };
        });
      },
    ],
  });

  resource(router, "/predict/anomaly", {
    post: [
      ...json,
      async (request, response) => {
        const asked = { model: "transaction-anomaly", input: request.body, inputPointer: "" };
        if (Array.isArray(request.body))
          throw new ServiceError("invalid_request", "The body must be an object by field name.");
        await answered(request, response, asked, ({ id, inferenceMs, output }) => ({
          ...(output as { is_anomaly: boolean; score: number; threshold: number }),
          inference_time_ms: inferenceMs,
          prediction_id: id,
        }));
      },
    ],
  });

  const readFile = fileReader("file", deps.maxFileBytes);
  resource(router, "/infer", {
    post: [
      ...deps.maySubmit,
      acceptsJson,
      async (request, response) => {
        const asked = { model: "deepfake-image", input: await readFile(request, response), inputPointer: "/file" };
        await answered(request, response, asked, ({ id, inferenceMs, output }) => {
          const { fake, real } = (output as Classified).probabilities;
          return {
            request_id: response.locals.requestId,
            fake_prob: fake,
            real_prob: real,
            inference_time_ms: inferenceMs,
            prediction_id: id,
          };
        });
      },
    ],
  });

  resource(router, "/models", {
    get: [
      deps.mayReadModels,
      acceptsJson,
      (request, response) => {
        onlyQuery(request);
        const models = deps.directory.all().map(({ defaultVersion, name, versions }) => {
          const manifest = versions.get(defaultVersion)?.announcement.manifest;
          return { name, version: defaultVersion, kind: manifest?.kind, metrics: manifest?.metrics ?? {} };
        });
        sendJson(response, 200, JSON.stringify({ models }));
      },
    ],
  });
  return router;
}
