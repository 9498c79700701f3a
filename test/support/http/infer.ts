import { keys, type Owner, type TestStack } from "../stack/stack.js";

/** An input of the Open Inference Protocol; bytes are sent after the JSON. */
export interface InferTensor {
  name: string;
  datatype: string;
  shape: number[];
  data?: unknown;
  bytes?: Uint8Array;
}

export interface InferOptions {
  as?: Owner;
  version?: string;
  headers?: Record<string, string>;
  /** Sent unchanged, in place of the body made of the other options. */
  body?: Uint8Array;
}

export interface InferAnswer {
  status: number;
  headers: Headers;
  /** The JSON part, as text and parsed. */
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: the shape depends on the request
  body: any;
  /** Binary data of outputs by name. */
  binary: Record<string, Buffer>;
}

/** A request's body and its headers. */
export function inferBody(request: { inputs: InferTensor[] } & Record<string, unknown>): {
  body: Buffer;
  headers: Record<string, string>;
} {
  const inputs = request.inputs.map(({ bytes, ...input }) =>
    bytes === undefined ? input : { ...input, parameters: { binary_data_size: bytes.length } },
  );
  const json = Buffer.from(JSON.stringify({ ...request, inputs }));
  const binary = request.inputs.flatMap(({ bytes }) => bytes ?? []);
  if (binary.length === 0) return { body: json, headers: { "content-type": "application/json" } };
  return {
    body: Buffer.concat([json, ...binary]),
    headers: { "content-type": "application/octet-stream", "inference-header-content-length": `${json.length}` },
  };
}

/** Sends a request to a model and parses the answer. */
export async function infer(
  stack: TestStack,
  model: string,
  request: { inputs: InferTensor[] } & Record<string, unknown>,
  options: InferOptions = {},
): Promise<InferAnswer> {
  const made = options.body === undefined ? inferBody(request) : { body: options.body, headers: {} };
  const path = options.version === undefined ? model : `${model}/versions/${options.version}`;
  const response = await fetch(`${stack.url}/v2/models/${path}/infer`, {
    method: "POST",
    headers: { authorization: `Bearer ${keys[options.as ?? "alice"]}`, ...made.headers, ...options.headers },
    body: made.body as unknown as BodyInit,
  });
  return takeApart(response);
}

/** A prediction, read in the form of the protocol. */
export async function fetchInference(
  stack: TestStack,
  id: string,
  accept = "application/vnd.open-inference+json",
): Promise<InferAnswer> {
  const headers = { authorization: `Bearer ${keys.alice}`, accept };
  return takeApart(await fetch(`${stack.url}/v1/predictions/${id}?wait=30`, { headers }));
}

async function takeApart(response: Response): Promise<InferAnswer> {
  const whole = Buffer.from(await response.arrayBuffer());
  const header = response.headers.get("inference-header-content-length");
  const text = whole.toString("utf8", 0, header === null ? whole.length : Number(header));
  const body = JSON.parse(text);
  const binary: Record<string, Buffer> = {};
  let at = Buffer.byteLength(text);
  for (const { name, parameters } of body.outputs ?? []) {
    if (parameters?.binary_data_size === undefined) continue;
    binary[name] = whole.subarray(at, at + parameters.binary_data_size);
    at += parameters.binary_data_size;
  }
  if (at !== whole.length) throw new Error(`${whole.length - at} bytes are left over`);
  return { status: response.status, headers: response.headers, text, body, binary };
}

/** Bytes of float32 values. */
export const float32 = (...values: number[]): Buffer => Buffer.from(new Float32Array(values).buffer);

/** Strings as BYTES: a length and UTF-8 each. */
export function bytesOf(...texts: (string | Uint8Array)[]): Buffer {
  return Buffer.concat(
    texts.flatMap((text) => {
      const content = Buffer.from(text as string);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(content.length);
      return [length, content];
    }),
  );
}
