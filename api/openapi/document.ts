import type { Scope } from "@millrace/shared/access/api-keys.js";
import { z } from "zod";
import { type Content, type Operation, type Operations, type Parameter, problemSchema } from "../http/operation.js";
import { batchesOperations } from "./batches.js";
import { deliveryOperations } from "./deliveries.js";
import { dropInOperations } from "./drop-in.js";
import { failureOperations, redriveOperations } from "./failures.js";
import { keyOperations } from "./keys.js";
import { modelChangeOperations, modelOperations } from "./models.js";
import { oneBatchOperations } from "./one-batch.js";
import { onePredictionOperations } from "./one-prediction.js";
import { monitoringOperations, operationsOperations } from "./operations.js";
import { pageOperations } from "./pages.js";
import { predictionsOperations } from "./predictions.js";
import { inferOperations, tensorModelOperations } from "./tensor-models.js";

type Json = Record<string, unknown>;

/** Each route's own, in the order in which a reader wants them. A test holds them against the router. */
const operations: Operations = {
  ...predictionsOperations,
  ...onePredictionOperations,
  ...batchesOperations,
  ...oneBatchOperations,
  ...deliveryOperations,
  ...failureOperations,
  ...redriveOperations,
  ...modelOperations,
  ...modelChangeOperations,
  ...dropInOperations,
  ...inferOperations,
  ...tensorModelOperations,
  ...monitoringOperations,
  ...keyOperations,
  ...operationsOperations,
  ...pageOperations,
};

/** The OpenAPI 3.1 document; bodies are made from the very schemas that check them. */
export function openApiDocument(version: string): Json {
  const components = new Components();
  const paths = Object.entries(operations).map(([path, methods]) => {
    const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string" },
    }));
    const described = Object.entries(methods).map(([method, operation]) => [method, describe(operation, components)]);
    return [path, { ...(named.length > 0 && { parameters: named }), ...Object.fromEntries(described) }];
  });
  const problem = components.content({ "application/problem+json": problemSchema }, "output");
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
      responses: { Problem: { description: "What is wrong, by RFC 9457", content: problem } },
      schemas: components.schemas,
    },
  };
}

function describe(
  { answers, body, bodyOptional, parameters, scope, summary }: Operation,
  components: Components,
): Json {
  const told = Object.entries(answers).map(([status, [description, content]]) => [
    status,
    { description, ...(content !== undefined && { content: components.content(content, "output") }) },
  ]);
  const parameterOf = ({ schema, ...rest }: Parameter) => ({ ...rest, schema: components.schema(schema, "input") });
  return {
    summary,
    ...(scope === null ? { security: [] } : { description: `Scope: ${scopeText(scope)}` }),
    ...(parameters !== undefined && { parameters: parameters.map(parameterOf) }),
    ...(body !== undefined && {
      requestBody: { required: bodyOptional !== true, content: components.content(body, "input") },
    }),
    responses: { ...Object.fromEntries(told), default: { $ref: "#/components/responses/Problem" } },
  };
}

const scopeText = (scope: Scope | readonly Scope[]): string =>
  [scope]
    .flat()
    .map((one) => `\`${one}\``)
    .join(" or ");

/** JSON Schemas made of zod's; those with an id become components, to which all others refer. */
class Components {
  readonly schemas: Record<string, Json> = {};

  content(content: Content, io: "input" | "output"): Json {
    const types = content instanceof z.ZodType ? { "application/json": content } : content;
    return Object.fromEntries(
      Object.entries(types).map(([type, schema]) => [type, { schema: this.schema(schema, io) }]),
    );
  }

  /** As a client writes it (`input`), or as it is answered, to which a release may add fields. */
  schema(schema: z.ZodType, io: "input" | "output"): Json {
    const made = z.toJSONSchema(schema, {
      io,
      unrepresentable: "any",
      override: ({ jsonSchema, zodSchema }) => {
        delete jsonSchema.id;
        if (zodSchema._zod.def.type === "custom") jsonSchema.type = "object";
        if (io === "output" && jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties;
        if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
        if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
      },
    });
    const {
      $defs = {},
      $schema: _,
      ...rest
    } = JSON.parse(JSON.stringify(made).replaceAll('"#/$defs/', '"#/components/schemas/')) as {
      $defs?: Record<string, Json>;
    } & Json;
    Object.assign(this.schemas, $defs);
    const { id } = schema.meta() ?? {};
    if (id === undefined) return rest;
    if ($defs[id] === undefined) this.schemas[id] = rest;
    return { $ref: `#/components/schemas/${id}` };
  }
}
