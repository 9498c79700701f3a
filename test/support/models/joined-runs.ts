import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { Random } from "../random.js";

/** Data of a request for one input; the first dimension is its rows. */
export interface Fed {
  dtype: Dtype;
  dims: readonly number[];
  data: readonly (number | bigint | string | boolean)[];
}

export type Request = Readonly<Record<string, Fed>>;

/** An input of random graphs: `rest` are the dimensions after the first one; integers stay below `below`. */
export interface InputSpec {
  name: string;
  dtype: Dtype;
  rest: readonly number[];
  below?: number;
  texts?: readonly string[];
}

const sessionOptions: InferenceSession.SessionOptions = {
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  logSeverityLevel: 4,
};

/** Rejects if ONNX Runtime refuses the file. */
export const openSession = (file: Uint8Array): Promise<InferenceSession> =>
  InferenceSession.create(file, sessionOptions);

/** Messages of ONNX Runtime for graphs and numbers that it refuses. Its errors have neither a class nor a code. */
const refusals =
  /^(Non-zero status code returned while running|This is an invalid model|Exception during initialization:|Node \()/;

/** Null in place of a refusal by ONNX Runtime, for `catch`; throws any other fault. */
export function refused(fault: Error): null {
  if (!refusals.test(fault.message)) throw fault;
  return null;
}

/** A request of `rows` rows with random numbers. */
export function randomRequest(random: Random, inputs: readonly InputSpec[], rows: number): Request {
  return Object.fromEntries(
    inputs.map(({ below = 4, dtype, name, rest, texts = ["a", "b"] }) => {
      const dims = [rows, ...rest];
      const element = () => {
        if (dtype === "string") return random.pick(texts);
        if (dtype === "bool") return random.below(2) === 1;
        if (dtype === "int64" || dtype === "uint64") return BigInt(random.below(below));
        return dtype.startsWith("float") ? random.unit() * 4 - 2 : random.below(below);
      };
      return [name, { dtype, dims, data: Array.from({ length: sizeOf(dims) }, element) }];
    }),
  );
}

const sizeOf = (dims: readonly number[]): number => dims.reduce((size, length) => size * length, 1);

const arrays: Partial<Record<Dtype, (data: Fed["data"]) => Tensor["data"]>> = {
  float32: (data) => Float32Array.from(data as number[]),
  float64: (data) => Float64Array.from(data as number[]),
  int64: (data) => BigInt64Array.from(data as bigint[]),
  int32: (data) => Int32Array.from(data as number[]),
  int8: (data) => Int8Array.from(data as number[]),
  uint8: (data) => Uint8Array.from(data as number[]),
  bool: (data) => Uint8Array.from(data as boolean[], Number),
  string: (data) => data as string[],
};

function tensorOf({ data, dims, dtype }: Fed): Tensor {
  const make = arrays[dtype];
  if (make === undefined) throw new Error(`dtype ${dtype} is not supported here`);
  return new Tensor(dtype as "float32", make(data) as Float32Array, dims);
}

/** The requests concatenated along the first dimension. */
export function joinedRequest(requests: readonly Request[]): Request {
  const [first] = requests as [Request];
  return Object.fromEntries(
    Object.entries(first).map(([name, { dims, dtype }]) => {
      const parts = requests.map((request) => request[name] as Fed);
      const rows = parts.reduce((sum, part) => sum + (part.dims[0] as number), 0);
      return [name, { dtype, dims: [rows, ...dims.slice(1)], data: parts.flatMap(({ data }) => data) }];
    }),
  );
}

type Outputs = Readonly<Record<string, Tensor>>;

const run = (session: InferenceSession, request: Request): Promise<Outputs> =>
  session.run(Object.fromEntries(Object.entries(request).map(([name, fed]) => [name, tensorOf(fed)])));

/**
 * Answers of a joined run compared with those of each request alone: `same` or `different`; `refused` and
 * `joined-refused` if ONNX Runtime refused every run, or just the joined one: no wrong answer can come of either.
 */
export type Comparison = { kind: "same" | "refused" | "joined-refused" } | { kind: "different"; how: string };

export async function compareJoined(session: InferenceSession, requests: readonly Request[]): Promise<Comparison> {
  const alone: (Outputs | null)[] = [];
  for (const request of requests) alone.push(await run(session, request).catch(refused));
  const joined = await run(session, joinedRequest(requests)).catch(refused);
  if (joined === null) return { kind: alone.every((outputs) => outputs === null) ? "refused" : "joined-refused" };
  let row = 0;
  const counts = requests.map((request) => Object.values(request)[0]?.dims[0] as number);
  const all = counts.reduce((sum, count) => sum + count, 0);
  for (const [i, outputs] of alone.entries()) {
    const count = counts[i] as number;
    if (outputs === null) return { kind: "different", how: `request ${i} is refused alone, but answered when joined` };
    for (const [name, own] of Object.entries(outputs)) {
      const together = joined[name] as Tensor;
      if (own.dims[0] !== count) return { kind: "different", how: `${name} is ${own.dims} for ${count} rows alone` };
      if (together.dims[0] !== all) return { kind: "different", how: `${name} is ${together.dims} for ${all} rows` };
      const how = differenceOf(own, together, row);
      if (how !== null) return { kind: "different", how: `${name} of request ${i}: ${how}` };
    }
    row += count;
  }
  return { kind: "same" };
}

/** The difference of an output from its rows, from `row` on, of the joined one; null if within 1e-5 of its scale. */
function differenceOf(own: Tensor, together: Tensor, row: number): string | null {
  if (own.dims.slice(1).join() !== together.dims.slice(1).join()) return `${own.dims} alone, ${together.dims} joined`;
  const data = own.data as ArrayLike<number | bigint | string>;
  const width = own.dims.slice(1).reduce((size, length) => size * length, 1);
  const from = row * width;
  const other = together.data as ArrayLike<number | bigint | string>;
  const isFloat = own.type.startsWith("float");
  let scale = 1e-30;
  if (isFloat) {
    for (let i = 0; i < data.length; i++) {
      if (Number.isFinite(data[i])) scale = Math.max(scale, Math.abs(data[i] as number));
    }
  }
  for (let i = 0; i < data.length; i++) {
    const [a, b] = [data[i], other[from + i]];
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    if (isFloat && Math.abs((a as number) - (b as number)) <= 1e-5 * scale) continue;
    return `element ${i} is ${a} alone, ${b} joined`;
  }
  return null;
}
