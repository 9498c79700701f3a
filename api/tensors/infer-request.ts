import { type Complaint, pointerSegment, ServiceError } from "@millrace/shared/service/errors.js";
import { z } from "zod";
import { parseCheckedJson } from "../http/check-json.js";
import { type JsonBodyLimits, requiredFault } from "../http/read-json.js";
import { bodyTooLarge } from "../http/read-upload.js";
import { parseExactJson } from "./exact-json.js";

/** An input tensor as the request has it: as JSON, or as bytes after the JSON. */
export interface InferInput {
  name: string;
  datatype: string;
  shape: number[];
  source: { data: unknown } | { bytes: Buffer };
}

/** A request of the Open Inference Protocol, its binary data taken apart but not yet held against a model. */
export interface InferRequest {
  id: string | undefined;
  /** The whole body as the one input of the model, in the raw form. */
  raw: Buffer | null;
  inputs: InferInput[];
  /** Outputs by name and whether each is wanted as binary data; null for all of them. */
  outputs: { name: string; binary: boolean }[] | null;
  binaryOutput: boolean;
  priority: number;
  /** 0: none. */
  timeoutMs: number;
  cache: boolean;
  webhookUrl: string | undefined;
  /** The JSON of the request without the elements of its tensors. */
  said: unknown;
}

const unsupported = (what: string) => z.undefined({ error: `${what} is not supported` }).optional();

const sharedMemory = {
  shared_memory_region: unsupported("shared memory"),
  shared_memory_offset: unsupported("shared memory"),
  shared_memory_byte_size: unsupported("shared memory"),
};

/** Parameters that are not ours are passed over, because clients send what other servers know. */
const requestSchema = z.object({
  id: z.string().max(1024).optional(),
  parameters: z
    .looseObject({
      priority: z.int().min(0).max(1000).default(0),
      timeout: z.int().min(0).default(0),
      binary_data_output: z.boolean().default(false),
      cache: z.boolean().default(true),
      webhook_url: z.string().optional(),
      sequence_id: unsupported("a sequence"),
    })
    .prefault({}),
  inputs: z.array(
    z.object({
      name: z.string(),
      datatype: z.string(),
      shape: z.array(z.number()).max(255),
      parameters: z.looseObject({ ...sharedMemory, binary_data_size: z.int().min(0).optional() }).prefault({}),
      data: z.unknown().optional(),
    }),
  ),
  outputs: z
    .array(
      z.object({
        name: z.string(),
        parameters: z
          .looseObject({
            ...sharedMemory,
            binary_data: z.boolean().optional(),
            classification: unsupported("classification"),
          })
          .prefault({}),
      }),
    )
    .optional(),
});

/**
 * Reads a request: JSON, of which `headerBytes` is the length where binary data follows; 0 for the raw form, null where
 * the whole body is JSON. The JSON is held to the limits of every JSON body. Throws `malformed_json`, `bad_header`,
 * `body_too_large` and `invalid_request`, the latter with the tensor's name.
 */
export function readInferRequest(body: Buffer, headerBytes: number | null, limits: JsonBodyLimits): InferRequest {
  if (headerBytes === 0) return { ...parse({ inputs: [] }), id: undefined, raw: body, inputs: [], binaryOutput: true };
  if (headerBytes !== null && headerBytes > body.length) {
    const detail = `Inference-Header-Content-Length is ${headerBytes}, but the body has ${body.length} bytes.`;
    throw new ServiceError("bad_header", detail);
  }
  const header = body.subarray(0, headerBytes ?? body.length);
  if (header.length > limits.maxBodyBytes) {
    throw bodyTooLarge("JSON before the binary data", limits.maxBodyBytes, "MAX_BODY_BYTES");
  }
  const json = parseCheckedJson(header, limits, parseExactJson);
  return parse(json, headerBytes === null ? null : body.subarray(headerBytes));
}

/** The value of `Inference-Header-Content-Length`; null where there is none. Throws `bad_header`. */
export function inferenceHeaderBytes(header: string | string[] | undefined): number | null {
  if (header === undefined) return null;
  if (!/^\d{1,10}$/.test(String(header))) {
    throw new ServiceError("bad_header", "Inference-Header-Content-Length must be a number of bytes.");
  }
  return Number(header);
}

function parse(json: unknown, binary: Buffer | null = null): InferRequest {
  const parsed = requestSchema.safeParse(json, { error: requiredFault });
  if (!parsed.success) throw invalid(parsed.error.issues.map((issue) => complaintOf(issue, json)));
  const { id, inputs, outputs, parameters } = parsed.data;
  const binaryOutput = parameters.binary_data_output;
  return {
    id,
    raw: null,
    inputs: takeApart(inputs, binary),
    outputs:
      outputs?.map(({ name, parameters: { binary_data: wanted } }) => ({ name, binary: wanted ?? binaryOutput })) ??
      null,
    binaryOutput,
    priority: parameters.priority,
    timeoutMs: Math.ceil(parameters.timeout / 1000),
    cache: parameters.cache,
    webhookUrl: parameters.webhook_url,
    said: withoutData(json as { inputs: object[] }),
  };
}

const withoutData = <T extends { inputs: object[] }>(json: T): object => ({
  ...json,
  inputs: json.inputs.map((input) => ({ ...input, data: undefined })),
});

/** Gives each input its data, or its share of the bytes after the JSON, which must add up. */
function takeApart(inputs: z.infer<typeof requestSchema>["inputs"], binary: Buffer | null): InferInput[] {
  let at = 0;
  const apart = inputs.map(({ data, datatype, name, parameters, shape }, i): InferInput => {
    const size = parameters.binary_data_size;
    const wrong = (detail: string) => invalid([{ detail: `tensor "${name}" ${detail}`, pointer: `/inputs/${i}` }]);
    if (size === undefined) {
      if (data === undefined) throw wrong("has neither data nor binary_data_size");
      return { name, datatype, shape, source: { data } };
    }
    if (data !== undefined) throw wrong("has both data and binary_data_size");
    if (binary === null) throw wrong("is binary data, but Inference-Header-Content-Length is missing");
    if (at + size > binary.length) {
      throw wrong(`has a binary_data_size of ${size}, but ${binary.length - at} bytes of binary data are left for it`);
    }
    at += size;
    return { name, datatype, shape, source: { bytes: binary.subarray(at - size, at) } };
  });
  if (binary !== null && at < binary.length) {
    const last = inputs.findLast(({ parameters }) => parameters.binary_data_size !== undefined);
    const where = last === undefined ? "no tensor has a binary_data_size" : `after that of tensor "${last.name}"`;
    throw invalid([
      { detail: `${binary.length - at} bytes of binary data are left over: ${where}`, pointer: "/inputs" },
    ]);
  }
  return apart;
}

/** A complaint of the schema, which tells of a tensor by its name where it has one. */
function complaintOf(issue: z.core.$ZodIssue, json: unknown): Complaint {
  const [side, i, ...rest] = issue.path;
  const pointer = issue.path.map((segment) => pointerSegment(String(segment))).join("");
  if ((side === "inputs" || side === "outputs") && typeof i === "number") {
    const name = (json as Record<string, { name?: unknown }[]>)[side]?.[i]?.name;
    if (typeof name === "string") {
      return { detail: `tensor "${name}"${rest.length > 0 ? `: ${rest.join(".")}` : ""}: ${issue.message}`, pointer };
    }
  }
  return { detail: `${issue.path.join(".") || "body"}: ${issue.message}`, pointer };
}

function invalid(complaints: Complaint[]): ServiceError {
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  return new ServiceError("invalid_request", `${complaints[0]?.detail}${more}`, { complaints });
}
