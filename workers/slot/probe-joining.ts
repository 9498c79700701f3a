import type { TensorSpec } from "@millrace/shared/announcement.js";
import { type Dtype, elementBytes } from "@millrace/shared/dtype.js";
import { toFloat16Bits } from "@millrace/shared/float16.js";
import { type PackedTensor, packStrings } from "@millrace/shared/tensor-pack.js";
import type { Tensor } from "onnxruntime-node";

type Outputs = Readonly<Record<string, Tensor>>;
type Run = (inputs: readonly PackedTensor[][]) => Promise<Outputs>;

/** Whether the ONNX file declares one row an input, one row an output: every first dimension dynamic, none fixed. */
export function declaresRows(inputs: readonly TensorSpec[], outputs: readonly TensorSpec[]): boolean {
  return inputs.length > 0 && [...inputs, ...outputs].every((spec) => typeof spec.shape[0] === "string");
}

/**
 * Whether rows come out the same in company as alone, tried on two samples or, where there are none, on made inputs. A
 * file can declare rows and still mix them (a mean over the batch), which nothing but a run shows. Where the model
 * cannot run the made inputs, what it declares is believed; every joined run is still held to its shape.
 */
export async function rowsAreIndependent(
  inputs: readonly TensorSpec[],
  samples: readonly PackedTensor[][],
  run: Run,
): Promise<boolean> {
  const made = [makeInput(inputs, 0), makeInput(inputs, 1)];
  const [a, b] = samples.length > 1 ? samples : made;
  try {
    const first = await run([a as PackedTensor[]]);
    const second = await run([b as PackedTensor[]]);
    const joined = await run([a as PackedTensor[], b as PackedTensor[], a as PackedTensor[]]);
    return Object.keys(first).every((name) =>
      isJoin(joined[name] as Tensor, [first[name], second[name], first[name]] as Tensor[]),
    );
  } catch {
    return true;
  }
}

function isJoin(joined: Tensor, parts: readonly Tensor[]): boolean {
  const elements = parts.flatMap((part) => Array.from(part.data as ArrayLike<unknown>));
  if (joined.dims[0] !== parts.reduce((rows, part) => rows + (part.dims[0] ?? 0), 0)) return false;
  if (joined.data.length !== elements.length) return false;
  return elements.every((element, i) => {
    const other = joined.data[i] as unknown;
    if (typeof element !== "number" || typeof other !== "number") return element === other;
    if (!Number.isFinite(element) || !Number.isFinite(other)) return Object.is(element, other);
    return Math.abs(element - other) <= 1e-3 * Math.max(1, Math.abs(element));
  });
}

/** One row of unremarkable values: 2 or 3 for integers (an index that most tables have), quarters for floats. */
function makeInput(inputs: readonly TensorSpec[], variant: number): PackedTensor[] {
  return inputs.map((spec) => {
    const shape = spec.shape.map((dimension, d) => (d === 0 ? 1 : typeof dimension === "number" ? dimension : 3));
    const count = shape.reduce((size, dimension) => size * dimension, 1);
    return { name: spec.name, dtype: spec.dtype, shape, bytes: makeElements(spec.dtype, count, variant) };
  });
}

function makeElements(dtype: Dtype, count: number, variant: number): Uint8Array {
  if (dtype === "string") return packStrings(new Array(count).fill(variant === 0 ? "a" : "b"));
  const size = elementBytes[dtype];
  const view = new DataView(new ArrayBuffer(count * size));
  for (let i = 0; i < count; i++) {
    const at = i * size;
    const fraction = 0.25 + 0.5 * variant;
    if (dtype === "float32") view.setFloat32(at, fraction, true);
    else if (dtype === "float64") view.setFloat64(at, fraction, true);
    else if (dtype === "float16") view.setUint16(at, toFloat16Bits(fraction), true);
    else view.setUint8(at, dtype === "bool" ? variant : 2 + variant);
  }
  return new Uint8Array(view.buffer);
}
