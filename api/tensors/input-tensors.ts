import { isUtf8 } from "node:buffer";
import type { Announcement, TensorSpec } from "@millrace/shared/models/announcement.js";
import { packElements } from "@millrace/shared/packing/pack-elements.js";
import { featuresOf } from "@millrace/shared/packing/pack-tabular.js";
import { describe, listedComplaints } from "@millrace/shared/packing/packer.js";
import { type Complaint, ServiceError } from "@millrace/shared/service/errors.js";
import { isFreeDimension, wantedLength } from "@millrace/shared/tensors/dimension.js";
import { elementBytes } from "@millrace/shared/tensors/dtype.js";
import { type PackedTensor, packTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { datatypeOf, shapeOf } from "./datatypes.js";
import type { InferInput, InferRequest } from "./infer-request.js";

const largestElements = 2 ** 30;
/** Product of an empty tensor's other dimensions at the most; all of them would be spelled out in JSON. */
const largestEmptyElements = 2 ** 20;

/**
 * Holds a request against a model version and packs its inputs in the order that the ONNX file declares. Throws
 * `invalid_input` with the names of all tensors that are wrong.
 */
export function packInferInputs(request: InferRequest, announcement: Announcement): Buffer {
  const { outputs } = announcement;
  const complaints: Complaint[] = [];
  const specs = inputSpecs(announcement);
  const given = request.raw === null ? request.inputs : [rawInput(request.raw, specs)];
  const places = new Map<string, number>();
  for (const [i, { name }] of given.entries()) {
    const pointer = `/inputs/${i}`;
    if (places.has(name)) complaints.push({ detail: `duplicate input tensor "${name}"`, pointer });
    else if (!specs.some((spec) => spec.name === name)) {
      complaints.push({ detail: `input tensor "${name}" is unknown, the model takes ${namesOf(specs)}`, pointer });
    }
    places.set(name, i);
  }
  const asked = new Set<string>();
  for (const [i, { name }] of (request.outputs ?? []).entries()) {
    const pointer = `/outputs/${i}`;
    if (asked.has(name)) complaints.push({ detail: `output tensor "${name}" is asked for twice`, pointer });
    else if (!outputs.some((spec) => spec.name === name)) {
      complaints.push({ detail: `output tensor "${name}" is unknown, the model has ${namesOf(outputs)}`, pointer });
    }
    asked.add(name);
  }
  const symbols = new Map<string, number>();
  const tensors: PackedTensor[] = [];
  for (const spec of specs) {
    const i = places.get(spec.name);
    if (i === undefined) complaints.push({ detail: `input tensor "${spec.name}" is missing`, pointer: "/inputs" });
    else {
      const input = given[i] as InferInput;
      const fault = shapeFault(input, spec, symbols);
      if (fault !== null) complaints.push({ detail: `tensor "${spec.name}" ${fault}`, pointer: `/inputs/${i}` });
      else tensors.push({ ...spec, shape: input.shape, bytes: bytesOf(input, spec, `/inputs/${i}`, complaints) });
    }
  }
  if (complaints.length > 0) throw invalid(complaints);
  return packTensors(tensors, { wantsTensors: true });
}

/**
 * What the inputs must be; those of a tabular model are its features, whatever its file leaves open and a slot derives.
 */
export function inputSpecs({ inputs, manifest }: Announcement): TensorSpec[] {
  switch (manifest.kind) {
    case "tabular":
      return inputs.map((spec) => ({ ...spec, shape: [spec.shape[0] ?? "", featuresOf(manifest).length] }));
    case "text":
    case "image":
    case "tensor":
      return inputs;
  }
}

function shapeFault({ datatype, shape }: InferInput, spec: TensorSpec, symbols: Map<string, number>): string | null {
  if (datatype !== datatypeOf[spec.dtype]) {
    return `has datatype ${datatype.slice(0, 32)}, the model takes ${datatypeOf[spec.dtype]}`;
  }
  const wanted = JSON.stringify(shapeOf(spec));
  if (shape.length !== spec.shape.length) {
    return `has ${shape.length} dimensions, the model takes ${spec.shape.length}: ${wanted}`;
  }
  for (const [d, length] of shape.entries()) {
    if (!Number.isInteger(length) || length < 0) return `has ${length} as dimension ${d}`;
    const declared = spec.shape[d] as number | string;
    const known = wantedLength(declared, symbols);
    if (known === undefined) symbols.set(String(declared), length);
    else if (known !== length) {
      return `must have length ${known} in dimension ${d}, has ${length}; the model takes ${wanted}`;
    }
  }
  const elements = shape.reduce((size, length) => size * Math.max(1, length), 1);
  const limit = shape.includes(0) ? largestEmptyElements : largestElements;
  return elements > limit ? `has ${elements} elements, more than any tensor may have` : null;
}

function bytesOf(
  { shape, source }: InferInput,
  spec: TensorSpec,
  pointer: string,
  complaints: Complaint[],
): Uint8Array {
  const count = shape.reduce((size, length) => size * length, 1);
  const complain = (detail: string, at = pointer) => {
    if (complaints.length <= listedComplaints)
      complaints.push({ detail: `tensor "${spec.name}" ${detail}`, pointer: at });
  };
  if ("bytes" in source) {
    const fault = bytesFault(source.bytes, spec, count);
    if (fault !== null) complain(`of shape ${JSON.stringify(shape)} ${fault}`, pointer);
    return source.bytes;
  }
  const values = elementsOf(source.data, shape);
  if (typeof values === "string") {
    complain(`of shape ${JSON.stringify(shape)}: ${values}`, `${pointer}/data`);
    return new Uint8Array(0);
  }
  const says = (i: number, detail: string) =>
    complain(`has an element ${i} that does not fit: ${detail}`, `${pointer}/data`);
  return packElements(values, spec.dtype, says, { bigAsText: true });
}

/** The fault of binary data of so many elements; null for none. */
function bytesFault(bytes: Buffer, { dtype }: TensorSpec, count: number): string | null {
  if (dtype !== "string") {
    const needed = count * elementBytes[dtype];
    if (bytes.length !== needed) return `needs ${needed} bytes, has ${bytes.length}`;
    return dtype === "bool" && highest(bytes) > 1 ? "has a byte that is neither 0 nor 1" : null;
  }
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 4 > bytes.length) return `needs ${count} elements, but the bytes end in element ${i}`;
    const end = at + 4 + bytes.readUInt32LE(at);
    if (end > bytes.length) return `has an element ${i} that claims to be longer than the bytes that there are`;
    const fault = textFault(bytes, at + 4, end);
    if (fault !== null) return `has an element ${i} ${fault}`;
    at = end;
  }
  return at === bytes.length ? null : `has ${bytes.length - at} bytes after its ${count} elements`;
}

function highest(bytes: Buffer): number {
  let highest = 0;
  for (let i = 0; i < bytes.length; i++) highest |= bytes[i] as number;
  return highest;
}

/** Strings are text to ONNX Runtime, which cuts them at NUL; what it would change is refused. */
function textFault(bytes: Buffer, from: number, to: number): string | null {
  let plain = true;
  for (let i = from; i < to; i++) {
    const byte = bytes[i] as number;
    if (byte === 0) return "with NUL in it";
    if (byte > 127) plain = false;
  }
  return plain || isUtf8(bytes.subarray(from, to)) ? null : "that is not UTF-8";
}

/** The elements of `data`, which may be flat or nested as the shape says; or what is wrong with it. */
function elementsOf(data: unknown, shape: readonly number[]): unknown[] | string {
  const count = shape.reduce((size, length) => size * length, 1);
  if (!Array.isArray(data)) return shape.length === 0 ? [data] : `data must be an array, is ${describe(data)}`;
  if (!Array.isArray(data[0])) {
    if (data.length === count) return data;
    return `data has ${data.length} elements, ${count} are needed`;
  }
  const values: unknown[] = [];
  const fault = flatten(data, shape, 0, values);
  return fault ?? values;
}

/** Depth is bounded by the rank, so hostile nesting is never followed. */
function flatten(value: unknown, shape: readonly number[], d: number, into: unknown[]): string | null {
  if (d === shape.length) {
    into.push(value);
    return null;
  }
  if (!Array.isArray(value) || value.length !== shape[d]) {
    const got = Array.isArray(value) ? `one of ${value.length}` : describe(value);
    return `data needs an array of ${shape[d]} in dimension ${d}, has ${got}`;
  }
  for (const inner of value) {
    const fault = flatten(inner, shape, d + 1, into);
    if (fault !== null) return fault;
  }
  return null;
}

/** The body as the model's only input, in the shape that its size leaves. Throws `invalid_input`. */
function rawInput(bytes: Buffer, specs: readonly TensorSpec[]): InferInput {
  const [spec] = specs;
  const wrong = (detail: string) => invalid([{ detail, pointer: "" }]);
  if (spec === undefined || specs.length > 1) {
    throw wrong(`a raw request is for models with one input, this one takes ${namesOf(specs) || "none"}`);
  }
  const base = { name: spec.name, datatype: datatypeOf[spec.dtype] };
  if (spec.dtype === "string") {
    if (spec.shape.some((length) => !isOpen(length) && length !== 1)) {
      throw wrong(`tensor "${spec.name}" cannot be sent raw: its shape is not [1]`);
    }
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32LE(bytes.length);
    return { ...base, shape: spec.shape.map(() => 1), source: { bytes: Buffer.concat([length, bytes]) } };
  }
  const open = spec.shape.flatMap((length, d) => (isOpen(length) ? [d] : []));
  // With two open dimensions of which the first is that of the rows, a raw request is one row.
  const deduced = open.length === 2 && open[0] === 0 ? open[1] : open.length === 1 ? open[0] : undefined;
  if (open.length > 0 && deduced === undefined) {
    throw wrong(
      `tensor "${spec.name}" cannot be sent raw: its shape ${JSON.stringify(shapeOf(spec))} cannot be deduced`,
    );
  }
  const shape = spec.shape.map((length) => (isOpen(length) ? 1 : Number(length)));
  const unit = shape.reduce((size, length) => size * length, elementBytes[spec.dtype]);
  if (deduced !== undefined) shape[deduced] = unit === 0 ? 0 : Math.floor(bytes.length / unit);
  return { ...base, shape, source: { bytes } };
}

/** Whether a dimension is not fixed. */
const isOpen = (length: number | string): boolean => typeof length === "string" || isFreeDimension(length);

const namesOf = (specs: readonly TensorSpec[]): string => specs.map(({ name }) => `"${name}"`).join(", ");

function invalid(complaints: Complaint[]): ServiceError {
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  return new ServiceError("invalid_input", `${complaints[0]?.detail}${more}`, {
    complaints: complaints.slice(0, listedComplaints),
  });
}
