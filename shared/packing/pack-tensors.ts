import type { TensorSpec } from "../models/announcement.js";
import { type Complaint, pointerSegment } from "../service/errors.js";
import { wantedLength } from "../tensors/dimension.js";
import { type PackedTensor, packTensors } from "../tensors/tensor-pack.js";
import { packElements } from "./pack-elements.js";
import { describe, listedComplaints, type Packer } from "./packer.js";

/**
 * Packs `{ "<tensor>": nested arrays }` into the model's input tensors, whose data types and shapes the ONNX file
 * declares: a rank-0 tensor is a bare value, a dynamic dimension takes any length, 64-bit integers may be decimal
 * strings. The rows are the first dimension where all inputs share one, else 1.
 */
export function tensorPacker(inputs: readonly TensorSpec[]): Packer {
  const known = new Set(inputs.map((spec) => spec.name));
  return (input) => {
    if (typeof input !== "object" || input === null || Array.isArray(input)) {
      return { complaints: [{ detail: `expected an object by tensor name, got ${describe(input)}`, pointer: "" }] };
    }
    const record = input as Record<string, unknown>;
    const complaints: Complaint[] = [];
    const symbols = new Map<string, number>();
    const tensors: PackedTensor[] = [];
    for (const spec of inputs) {
      const pointer = pointerSegment(spec.name);
      if (!Object.hasOwn(record, spec.name)) {
        complaints.push({ detail: `tensor "${spec.name}" is missing`, pointer });
        continue;
      }
      const reader = new TensorReader(spec, pointer, complaints);
      const tensor = reader.read(record[spec.name], symbols);
      if (tensor !== null) tensors.push(tensor);
    }
    for (const name of Object.keys(record)) {
      if (!known.has(name)) complaints.push({ detail: `tensor "${name}" is unknown`, pointer: pointerSegment(name) });
    }
    if (complaints.length > 0) return { complaints: complaints.slice(0, listedComplaints) };
    return { pack: packTensors(tensors), rows: rowsOf(tensors) };
  };
}

/** The common first dimension of all tensors; 1 where they differ, or where one is a scalar. */
export function rowsOf(tensors: readonly { shape: readonly number[] }[]): number {
  const rows = tensors[0]?.shape[0];
  return rows !== undefined && tensors.every((tensor) => tensor.shape[0] === rows) ? rows : 1;
}

const lengthBelow = (declared: number | string): number => (typeof declared === "number" ? Math.max(0, declared) : 0);

class TensorReader {
  readonly #complaints: Complaint[];
  readonly #pointer: string;
  readonly #spec: TensorSpec;

  constructor(spec: TensorSpec, pointer: string, complaints: Complaint[]) {
    this.#spec = spec;
    this.#pointer = pointer;
    this.#complaints = complaints;
  }

  read(value: unknown, symbols: Map<string, number>): PackedTensor | null {
    const before = this.#complaints.length;
    const { name, dtype, shape: declared } = this.#spec;
    const shape: number[] = [];
    for (let level = value, d = 0; d < declared.length; d++) {
      // Below an empty dimension the others are unknown: declared ones hold, dynamic ones are empty too.
      if (d > 0 && shape[d - 1] === 0) shape.push(lengthBelow(declared[d] as number | string));
      else if (!Array.isArray(level)) {
        this.#complain(`tensor "${name}" must have ${declared.length} dimensions, got ${d}`);
        return null;
      } else {
        shape.push(level.length);
        level = level[0];
      }
    }
    declared.forEach((expected, d) => {
      const actual = shape[d] as number;
      const wanted = wantedLength(expected, symbols);
      if (wanted === undefined) symbols.set(String(expected), actual);
      else if (wanted !== actual) {
        this.#complain(`tensor "${name}" must have length ${wanted} in dimension ${d}, got ${actual}`);
      }
    });
    if (this.#complaints.length > before) return null;
    const values: unknown[] = [];
    this.#flatten(value, shape, 0, this.#pointer, values);
    if (this.#complaints.length > before) return null;
    const bytes = packElements(values, dtype, (i, detail) => this.#complain(detail, this.#pointerTo(i, shape)));
    return this.#complaints.length > before ? null : { name, dtype, shape, bytes };
  }

  /** Depth is bounded by the declared rank, so hostile nesting is never followed. */
  #flatten(value: unknown, shape: readonly number[], d: number, pointer: string, into: unknown[]): void {
    if (d === shape.length) {
      into.push(value);
      return;
    }
    if (!Array.isArray(value) || value.length !== shape[d]) {
      const got = Array.isArray(value) ? `${value.length}` : describe(value);
      this.#complain(`expected an array of length ${shape[d]}, got ${got}`, pointer);
      return;
    }
    if (d === shape.length - 1) {
      for (const element of value) into.push(element);
      return;
    }
    for (let i = 0; i < value.length; i++) this.#flatten(value[i], shape, d + 1, `${pointer}/${i}`, into);
  }

  #pointerTo(index: number, shape: readonly number[]): string {
    const path: number[] = [];
    let rest = index;
    for (let d = shape.length - 1; d >= 0; d--) {
      const dimension = shape[d] as number;
      path.unshift(rest % dimension);
      rest = Math.floor(rest / dimension);
    }
    return this.#pointer + path.map(pointerSegment).join("");
  }

  #complain(detail: string, pointer = this.#pointer): void {
    if (this.#complaints.length <= listedComplaints) this.#complaints.push({ detail, pointer });
  }
}
