import { Tensor } from "onnxruntime-node";

type Outputs = Readonly<Record<string, Tensor>>;

/** Cuts dimensions to a row's own length: the first entries, or the last where padding was added on the left. */
export interface Cut {
  axesByOutput: ReadonlyMap<string, readonly number[]>;
  length: number;
  padded: "left" | "right";
}

/** Rows [from, to) of a run's outputs, without the padding along the given dimensions. */
export function cutRows(outputs: Outputs, [from, to]: readonly [number, number], cut: Cut): Outputs {
  const own: Record<string, Tensor> = Object.create(null);
  for (const [name, tensor] of Object.entries(outputs))
    own[name] = cutTensor(tensor, from, to, cut.axesByOutput.get(name) ?? [], cut);
  return own;
}

function cutTensor(tensor: Tensor, from: number, to: number, axes: readonly number[], { length, padded }: Cut): Tensor {
  const dims = tensor.dims.map((own, d) => (d === 0 ? to - from : axes.includes(d) ? length : own));
  const data = tensor.data as Float32Array;
  const strides = tensor.dims.map((_, d) => tensor.dims.slice(d + 1).reduce((size, own) => size * own, 1));
  const inner = strides[0] as number;
  if (dims.every((own, d) => d === 0 || own === tensor.dims[d])) {
    return new Tensor(tensor.type, data.slice(from * inner, to * inner) as never, dims);
  }
  const skipped = (d: number) =>
    padded === "left" ? ((tensor.dims[d] as number) - length) * (strides[d] as number) : 0;
  const start = axes.reduce((offset, d) => offset + skipped(d), from * inner);
  const count = dims.reduce((size, own) => size * own, 1);
  const kept = tensor.type === "string" ? new Array<string>(count) : data.slice(0, count);
  // From the last cut dimension on, elements are contiguous in source and result.
  const last = Math.max(...axes);
  const run = dims.slice(last).reduce((size, own) => size * own, 1);
  const place = new Array<number>(last).fill(0);
  for (let at = 0; at < count; at += run) {
    const begin = place.reduce((offset, own, d) => offset + own * (strides[d] as number), start);
    for (let i = 0; i < run; i++) kept[at + i] = data[begin + i] as never;
    for (let d = place.length - 1; d >= 0; d--) {
      place[d] = (place[d] as number) + 1;
      if ((place[d] as number) < (dims[d] as number)) break;
      place[d] = 0;
    }
  }
  return new Tensor(tensor.type, kept as never, dims);
}
