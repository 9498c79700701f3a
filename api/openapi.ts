import { batchStatuses } from "@millrace/shared/predictions/batch.js";
import { predictionStatuses } from "@millrace/shared/predictions/prediction.js";
import { redriveStatuses } from "@millrace/shared/predictions/redrive.js";
import { failureCodes } from "@millrace/shared/service/failure-codes.js";
import { z } from "zod";
import { batchOptionsSchema } from "./batches/batch-options.js";
import { redriveRequestSchema } from "./predictions/make-redrive.js";
import { submissionSchema } from "./predictions/submission.js";
import { newKeySchema, rotationSchema } from "./routes/keys.js";

type Json = Record<string, unknown>;

interface Operation {
  summary: string;
  /** The scope that a key must have; null: none is wanted. */
  scope: "read" | "predict" | "admin" | null;
  parameters?: readonly Json[];
  body?: Json;
  /** By status: what is answered, and its schema or content. */
  answers: Record<string, readonly [description: string, content?: Json]>;
}

const ref = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });
const json = (schema: Json): Json => ({ "application/json": { schema } });
const text = (type: string): Json => ({ [type]: { schema: { type: "string" } } });
const page = (schema: Json): Json =>
  json({
    type: "object",
    required: ["data", "next_cursor"],
    properties: { data: { type: "array", items: schema }, next_cursor: { type: ["string", "null"] } },
  });
const list = (schema: Json): Json =>
  json({ type: "object", required: ["data"], properties: { data: { type: "array", items: schema } } });
const query = (name: string, schema: Json, description: string): Json => ({ name, in: "query", schema, description });
const header = (name: string, schema: Json, description: string): Json => ({ name, in: "header", schema, description });
const whole = (minimum: number, maximum?: number): Json => ({ type: "integer", minimum, ...(maximum && { maximum }) });

const wait = query("wait", whole(0, 60), "Answer as soon as it is final, at the latest after so many seconds");
const listing = (statuses: readonly string[]) => [
  query("model", { type: "string" }, "Only of this model"),
  query("status", { enum: statuses }, "Only in this state"),
  query("limit", whole(1, 100), "Entries of a page; 20 unless told"),
  query("cursor", { type: "string" }, "`next_cursor` of the page before"),
];
const idempotency = header(
  "Idempotency-Key",
  { type: "string" },
  "The same key and body are answered as the first time, for a day and within a model; another body is refused. The " +
    "order of members in JSON does not matter; NDJSON and CSV are compared by their bytes",
);
const preferWait = header(
  "Prefer",
  { type: "string" },
  "`wait=N`: answer with the end if it comes within N ≤ 60 seconds",
);
const lastEvent = header("Last-Event-ID", { type: "string" }, "The last event that was seen");
const states: Operation["answers"] = { 200: ["Events `status` until it is final", text("text/event-stream")] };
const deliveries: Operation["answers"] = { 200: ["Every delivery and every try", json({ type: "object" })] };

/** From a zod schema, as a client would write it. */
const schemaOf = (schema: z.ZodType): Json => {
  const made = z.toJSONSchema(schema, {
    io: "input",
    unrepresentable: "any",
    override: ({ zodSchema, jsonSchema }) => {
      if (zodSchema._zod.def.type === "custom") jsonSchema.type = "object";
    },
  }) as Json;
  const { $schema: _, ...rest } = made;
  return rest;
};

const timestamp: Json = { type: ["string", "null"], format: "date-time" };
const prediction: Json = {
  type: "object",
  properties: {
    id: { type: "string" },
    object: { const: "prediction" },
    model: { type: "string" },
    version: { type: "string" },
    status: { enum: predictionStatuses },
    output: { description: "By the kind of the model; null until it has succeeded" },
    error: { type: ["object", "null"], properties: { code: { type: "string" }, detail: { type: "string" } } },
    created_at: timestamp,
    started_at: timestamp,
    finished_at: timestamp,
    attempts: whole(0),
    cached: { type: "boolean" },
    deduplicated: { type: "boolean" },
    metadata: { type: "object", description: "As they were sent, but for the space between tokens" },
    retry_of: { type: ["string", "null"] },
    queue_position: { type: ["integer", "null"] },
    model_digest: { type: "string" },
    timings: { type: ["object", "null"] },
    urls: { type: "object" },
  },
};
const batch: Json = {
  type: "object",
  properties: {
    id: { type: "string" },
    object: { const: "batch" },
    model: { type: "string" },
    version: { type: "string" },
    status: { enum: batchStatuses },
    counts: {
      type: "object",
      properties: Object.fromEntries(
        ["total", "succeeded", "failed", "canceled", "pending"].map((name) => [name, whole(0)]),
      ),
    },
    progress: { type: "number", minimum: 0, maximum: 1 },
    created_at: timestamp,
    started_at: timestamp,
    finished_at: timestamp,
    rows_per_second: { type: ["number", "null"] },
    eta_ms: { type: ["number", "null"] },
    metadata: { type: "object", description: "As they were sent, but for the space between tokens" },
    urls: { type: "object" },
  },
};
const failureGroup: Json = {
  type: "object",
  properties: {
    object: { const: "failure_group" },
    model: { type: "string" },
    code: { enum: failureCodes },
    count: whole(1),
    first_failed_at: timestamp,
    last_failed_at: timestamp,
    examples: { type: "array", items: { type: "string" }, description: "Ids of the newest, newest first" },
  },
};
const redrive: Json = {
  type: "object",
  properties: {
    id: { type: "string" },
    object: { const: "redrive" },
    status: { enum: redriveStatuses },
    filter: { type: "object" },
    rate: { type: "number" },
    counts: {
      type: "object",
      properties: Object.fromEntries(
        ["total", "redriven", "skipped", "canceled", "pending"].map((name) => [name, whole(0)]),
      ),
    },
    created_at: timestamp,
    started_at: timestamp,
    finished_at: timestamp,
    urls: { type: "object" },
  },
};
const problem: Json = {
  type: "object",
  description: "RFC 9457; `code` is stable, `errors` lists everything that is wrong",
  required: ["type", "title", "status", "detail", "code", "request_id", "errors"],
  properties: {
    type: { type: "string" },
    title: { type: "string" },
    status: { type: "integer" },
    detail: { type: "string" },
    code: { type: "string" },
    request_id: { type: "string" },
    errors: {
      type: "array",
      items: { type: "object", properties: { detail: { type: "string" }, pointer: { type: "string" } } },
    },
  },
};
const key: Json = {
  type: "object",
  properties: {
    id: { type: "string" },
    object: { const: "key" },
    owner: { type: "string" },
    scopes: { type: "array", items: { type: "string" } },
    created_at: timestamp,
    expires_at: timestamp,
    last_used_at: timestamp,
    key: { type: "string", description: "Only in the answer that makes it" },
  },
};

/** What is served, by path and method. A path that is added is added here too; a test holds the two against each other. */
const operations: Record<string, Partial<Record<"get" | "post", Operation>>> = {
  "/v1/models/{model}/predictions": {
    post: {
      summary: "Submit a prediction",
      scope: "predict",
      parameters: [idempotency, preferWait],
      body: json(ref("Submission")),
      answers: {
        200: ["It is final: within `Prefer: wait`, or from the cache", json(ref("Prediction"))],
        202: ["Accepted; `Location` leads to it", json(ref("Prediction"))],
      },
    },
  },
  "/v1/predictions": {
    get: {
      summary: "List your predictions, newest first",
      scope: "read",
      parameters: listing(predictionStatuses),
      answers: { 200: ["A page", page(ref("Prediction"))] },
    },
  },
  "/v1/predictions/{id}": {
    get: {
      summary: "Read a prediction",
      scope: "read",
      parameters: [wait],
      answers: { 200: ["As it stands", json(ref("Prediction"))] },
    },
  },
  "/v1/predictions/{id}/events": {
    get: {
      summary: "Follow a prediction by server-sent events",
      scope: "read",
      parameters: [lastEvent],
      answers: states,
    },
  },
  "/v1/predictions/{id}/cancel": {
    post: { summary: "Cancel a prediction", scope: "predict", answers: { 200: ["Canceled", json(ref("Prediction"))] } },
  },
  "/v1/predictions/{id}/retry": {
    post: {
      summary: "Try a failed, canceled or expired prediction again",
      scope: "predict",
      parameters: [idempotency],
      answers: { 202: ["A new prediction", json(ref("Prediction"))] },
    },
  },
  "/v1/predictions/{id}/deliveries": {
    get: { summary: "See the webhooks of a prediction", scope: "read", answers: deliveries },
  },
  "/v1/models/{model}/batches": {
    post: {
      summary: "Submit a batch in one streamed request",
      scope: "predict",
      parameters: [
        idempotency,
        ...["version", "priority", "cache", "metadata", "webhook"].map((name) =>
          query(name, { type: "string" }, "As in the JSON body, for NDJSON and CSV"),
        ),
      ],
      body: {
        ...json(ref("BatchSubmission")),
        ...text("application/x-ndjson"),
        ...text("text/csv"),
      },
      answers: { 202: ["Accepted; `Location` leads to it", json(ref("Batch"))] },
    },
  },
  "/v1/batches": {
    get: {
      summary: "List your batches, newest first",
      scope: "read",
      parameters: listing(batchStatuses),
      answers: { 200: ["A page", page(ref("Batch"))] },
    },
  },
  "/v1/batches/{id}": {
    get: {
      summary: "Read a batch",
      scope: "read",
      parameters: [wait],
      answers: { 200: ["As it stands", json(ref("Batch"))] },
    },
  },
  "/v1/batches/{id}/events": {
    get: { summary: "Follow a batch by server-sent events", scope: "read", parameters: [lastEvent], answers: states },
  },
  "/v1/batches/{id}/results": {
    get: {
      summary: "Read the results in input order, while it runs too",
      scope: "read",
      parameters: [
        query("from", whole(0), "The first index"),
        query("limit", whole(1, 10_000), "Of a JSON page"),
        query("cursor", { type: "string" }, "`next_cursor` of the page before"),
      ],
      answers: {
        200: [
          "A line for each input",
          { ...text("application/x-ndjson"), ...text("text/csv"), ...page({ type: "object" }) },
        ],
      },
    },
  },
  "/v1/batches/{id}/cancel": {
    post: { summary: "Cancel a batch", scope: "predict", answers: { 200: ["Canceled", json(ref("Batch"))] } },
  },
  "/v1/batches/{id}/retry": {
    post: {
      summary: "Run the rows that failed again",
      scope: "predict",
      parameters: [idempotency],
      answers: { 202: ["A new batch", json(ref("Batch"))] },
    },
  },
  "/v1/batches/{id}/deliveries": {
    get: { summary: "See the webhooks of a batch", scope: "read", answers: deliveries },
  },
  "/v1/deliveries/{id}/redeliver": {
    post: {
      summary: "Deliver a webhook once more",
      scope: "predict",
      answers: { 202: ["On its way", json({ type: "object" })] },
    },
  },
  "/v1/failures": {
    get: {
      summary: "See your failed predictions that nobody has tried again, by model and code",
      scope: "read",
      parameters: [
        query("model", { type: "string" }, "Only of this model"),
        query("code", { enum: failureCodes }, "Only with this code"),
      ],
      answers: { 200: ["The groups, newest first", list(ref("FailureGroup"))] },
    },
  },
  "/v1/failures/redrive": {
    post: {
      summary: "Try failed predictions again, each once, so many a second",
      scope: "predict",
      parameters: [idempotency],
      body: json(ref("RedriveRequest")),
      answers: { 202: ["Accepted; `Location` leads to it", json(ref("Redrive"))] },
    },
  },
  "/v1/failures/redrives": {
    get: {
      summary: "List your redrives, the newest hundred, newest first",
      scope: "read",
      answers: { 200: ["The redrives", list(ref("Redrive"))] },
    },
  },
  "/v1/failures/redrives/{id}": {
    get: {
      summary: "Read a redrive",
      scope: "read",
      parameters: [wait],
      answers: { 200: ["As it stands", json(ref("Redrive"))] },
    },
  },
  "/v1/failures/redrives/{id}/cancel": {
    post: {
      summary: "Redrive no more of it",
      scope: "predict",
      answers: { 200: ["Canceled", json(ref("Redrive"))] },
    },
  },
  "/v1/models": {
    get: { summary: "See what is served", scope: "read", answers: { 200: ["All models", json({ type: "object" })] } },
  },
  "/v1/models/{model}": {
    get: {
      summary: "See a model: versions, input, workers, queue, a sample",
      scope: "read",
      answers: { 200: ["The model", json({ type: "object" })] },
    },
  },
  ...Object.fromEntries(
    (
      [
        ["/predict", "Name the attack behind one network flow", "application/json"],
        ["/predict/batch", "The same of up to 1,000 flows", "application/json"],
        ["/predict/intent", "Name what a text is about", "application/json"],
        ["/predict/anomaly", "Score a card payment", "application/json"],
        ["/infer", "Tell whether an image is made up, as the multipart field `file`", "multipart/form-data"],
      ] as const
    ).map(([path, summary, type]) => [
      path,
      {
        post: {
          summary,
          scope: "predict",
          body: { [type]: { schema: { type: "object" } } },
          answers: { 200: ["The result itself", json({ type: "object" })] },
        } as const,
      },
    ]),
  ),
  "/models": {
    get: {
      summary: "See what is served, as existing clients know it",
      scope: "read",
      answers: { 200: ["All models", json({ type: "object" })] },
    },
  },
  "/v2/models/{model}/infer": {
    post: {
      summary: "Infer by the Open Inference Protocol, version 2",
      scope: "predict",
      body: { ...json({ type: "object" }), ...text("application/octet-stream") },
      answers: { 200: ["The result itself", json({ type: "object" })] },
    },
  },
  "/v2/models/{model}": {
    get: {
      summary: "See a model by the Open Inference Protocol",
      scope: "read",
      answers: { 200: ["Its metadata", json({ type: "object" })] },
    },
  },
  "/admin/keys": {
    get: {
      summary: "List the keys in Redis",
      scope: "admin",
      answers: { 200: ["All of them, never the keys themselves", json({ type: "object" })] },
    },
    post: {
      summary: "Make a key",
      scope: "admin",
      body: json(ref("NewKey")),
      answers: { 201: ["The key, shown this once", json(ref("Key"))] },
    },
  },
  "/admin/keys/{key}/rotate": {
    post: {
      summary: "Make a key that may do the same; the old one ends after the overlap",
      scope: "admin",
      body: json(ref("Rotation")),
      answers: { 200: ["The new key, shown this once", json(ref("Key"))] },
    },
  },
  "/admin/keys/{key}/revoke": {
    post: {
      summary: "End a key on all APIs at once",
      scope: "admin",
      answers: { 200: ["Ended", json({ type: "object" })] },
    },
  },
  "/": {
    get: {
      summary: "A page to try the models; service information as JSON",
      scope: null,
      answers: { 200: ["By `Accept`", { ...json({ type: "object" }), ...text("text/html") }] },
    },
  },
  "/docs": {
    get: { summary: "This document as a page", scope: null, answers: { 200: ["The page", text("text/html")] } },
  },
  "/openapi.json": {
    get: { summary: "This document", scope: null, answers: { 200: ["OpenAPI 3.1", json({ type: "object" })] } },
  },
  "/schemas/model.json": {
    get: {
      summary: "The JSON Schema of model.json",
      scope: null,
      answers: { 200: ["The schema", json({ type: "object" })] },
    },
  },
  "/health": {
    get: { summary: "The process is alive", scope: null, answers: { 200: ["Alive", json({ type: "object" })] } },
  },
  "/ready": {
    get: {
      summary: "It can take work",
      scope: null,
      answers: { 200: ["It can", json({ type: "object" })], 503: ["It cannot", json({ type: "object" })] },
    },
  },
  "/metrics": { get: { summary: "Prometheus metrics", scope: null, answers: { 200: ["Text", text("text/plain")] } } },
};

/** The OpenAPI 3.1 document of what is served; bodies are made from the very schemas that check them. */
export function openApiDocument(version: string): Json {
  const paths = Object.entries(operations).map(([path, methods]) => {
    const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string" },
    }));
    const described = Object.entries(methods).map(([method, operation]) => [method, describe(operation)]);
    return [path, { ...(named.length > 0 && { parameters: named }), ...Object.fromEntries(described) }];
  });
  const batchOptions = schemaOf(batchOptionsSchema) as { properties: Json; additionalProperties: boolean };
  return {
    openapi: "3.1.1",
    info: {
      title: "Millrace",
      version,
      description: "Inference jobs for ONNX models: submit, then wait, poll, follow or be called.",
      license: { name: "MIT", identifier: "MIT" },
    },
    security: [{ bearer: [] }, { apiKey: [] }],
    paths: Object.fromEntries(paths),
    components: {
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer" },
        apiKey: { type: "apiKey", in: "header", name: "X-API-Key" },
      },
      responses: {
        Problem: {
          description: "What is wrong, by RFC 9457",
          content: { "application/problem+json": { schema: ref("Problem") } },
        },
      },
      schemas: {
        Submission: { ...schemaOf(submissionSchema), required: ["input"] },
        BatchSubmission: {
          ...batchOptions,
          required: ["inputs"],
          properties: { inputs: { type: "array", items: {} }, ...batchOptions.properties },
        },
        NewKey: schemaOf(newKeySchema),
        Rotation: schemaOf(rotationSchema),
        Prediction: prediction,
        Batch: batch,
        FailureGroup: failureGroup,
        RedriveRequest: schemaOf(redriveRequestSchema),
        Redrive: redrive,
        Key: key,
        Problem: problem,
      },
    },
  };
}

function describe({ answers, body, parameters, scope, summary }: Operation): Json {
  const told = Object.entries(answers).map(([status, [description, content]]) => [
    status,
    { description, ...(content !== undefined && { content }) },
  ]);
  return {
    summary,
    ...(scope === null ? { security: [] } : { description: `Scope: \`${scope}\`` }),
    ...(parameters !== undefined && { parameters }),
    ...(body !== undefined && { requestBody: { required: true, content: body } }),
    responses: { ...Object.fromEntries(told), default: { $ref: "#/components/responses/Problem" } },
  };
}
