import { z } from "zod";
import { type Content, type Operation, type Operations, timeSchema } from "../http/operation.js";
import { batchBody, flowBody, queryBody } from "../routes/drop-in.js";

/** By field name; the model says which. */
const transactionBody = z.looseObject({}).meta({ id: "Transaction" });
const millisecondsSchema = z.number();
const classifiedShape = {
  confidence: z.number(),
  probabilities: z.record(z.string(), z.number()),
};
const flowAnswer = z
  .object({
    prediction: z.string(),
    ...classifiedShape,
    model_name: z.string(),
    model_version: z.string(),
    inference_time_ms: millisecondsSchema,
    timestamp: timeSchema,
    prediction_id: z.string(),
  })
  .meta({ id: "FlowAnswer" });
const flowsAnswer = z
  .object({
    predictions: z.array(
      z.union([
        z.object({ index: z.int(), prediction: z.string(), ...classifiedShape }),
        z.object({ index: z.int(), error: z.string() }),
      ]),
    ),
    total: z.int(),
    succeeded: z.int(),
    failed: z.int(),
    model_name: z.string(),
    inference_time_ms: millisecondsSchema,
    timestamp: timeSchema,
  })
  .meta({ id: "FlowsAnswer" });
const intentAnswer = z
  .object({
    intent: z.string(),
    confidence: z.number(),
    alternatives: z.array(z.object({ intent: z.string(), confidence: z.number() })),
    query_length: z.int(),
    cached: z.boolean(),
    inference_time_ms: millisecondsSchema,
    prediction_id: z.string(),
  })
  .meta({ id: "IntentAnswer" });
const anomalyAnswer = z
  .object({
    is_anomaly: z.boolean(),
    score: z.number(),
    threshold: z.number(),
    inference_time_ms: millisecondsSchema,
    prediction_id: z.string(),
  })
  .meta({ id: "AnomalyAnswer" });
const imageAnswer = z
  .object({
    request_id: z.string(),
    fake_prob: z.number(),
    real_prob: z.number(),
    inference_time_ms: millisecondsSchema,
    prediction_id: z.string(),
  })
  .meta({ id: "ImageAnswer" });
const imageForm = z.object({ file: z.string().meta({ format: "binary" }) }).meta({ id: "ImageForm" });
const servedModels = z
  .object({
    models: z.array(
      z.object({
        name: z.string(),
        version: z.string(),
        kind: z.string().optional(),
        metrics: z.record(z.string(), z.unknown()),
      }),
    ),
  })
  .meta({ id: "ServedModels" });

const predict = (summary: string, body: Content, answer: z.ZodType): { post: Operation } => ({
  post: { summary, scope: "predict", body, answers: { 200: ["The result itself", answer] } },
});

/** The operations of `routes/drop-in.ts`. */
export const dropInOperations: Operations = {
  "/predict": predict("Name the attack behind one network flow", flowBody, flowAnswer),
  "/predict/batch": predict("The same of up to 1,000 flows", batchBody, flowsAnswer),
  "/predict/intent": predict("Name what a text is about", queryBody, intentAnswer),
  "/predict/anomaly": predict("Score a card payment", transactionBody, anomalyAnswer),
  "/infer": predict("Detect image manipulation", { "multipart/form-data": imageForm }, imageAnswer),
  "/models": {
    get: {
      summary: "See what is served, as existing clients know it",
      scope: ["read", "operate"],
      answers: { 200: ["All models", servedModels] },
    },
  },
};
