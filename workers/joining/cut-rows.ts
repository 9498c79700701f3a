import { Tensor } from "onnxruntime-node";

type Outputs = Readonly<Record<string, Tensor>>;

/** Rows [from, to) of a run's outputs, cut to a length along some dimensions, which are counted from the first. */
export function cutRows(
  outputs: Outputs,
  [from, to]: readonly [number, number],
  axesByOutput: ReadonlyMap<string, readonly number[]>,
  length: number,
): Outputs {
  const cut: Record<string, Tensor> = Object.create(null);
  for (const [name, tensor] of Object.entries(outputs))
    cut[name] = cutTensor(tensor, from, to, axesByOutput.get(name) ?? [], length);
  return cut;
}

function cutTensor(tensor: Tensor, from: number, to: number, axes: readonly number[], length: number): Tensor {
  const dims = tensor.dims.map((own, d) => (d === 0 ? to - from : axes.includes(d) ? length : own));
  const data = tensor.data as Float32Array;
  const strides = tensor.dims.map((_, d) => tensor.dims.slice(d + 1).reduce((size, own) => size * own, 1));
  const inner = strides[0] as number;
  if (dims.every((own, d) => d === 0 || own === tensor.dims[d])) {
    return new Tensor(tensor.type, data.slice(from * inner, to * inner) as never, dims);
  }
  const count = dims.reduce((size, own) => size * own, 1);
  const kept = tensor.type === "string" ? new Array<string>(count) : data.slice(0, count);
  // From the last dimension that is cut on, elements follow one another as they did.
  const last = Math.max(...axes) + 1;
  const run = dims.slice(last - 1).reduce((size, own) => size * own, 1);
  const place = new Array<number>(last - 1).fill(0);
  for (let at = 0; at < count; at += run) {
    const begin = place.reduce((offset, own, d) => offset + own * (strides[d] as number), from * inner);
    for (let i = 0; i < run; i++) kept[at + i] = data[begin + i] as never;
    for (let d = place.length - 1; d >= 0; d--) {
      place[d] = (place[d] as number) + 1;
      if ((place[d] as number) < (dims[d] as number)) break;
      place[d] = 0;
    }
  }
  return new Tensor(tensor.type, kept as never, dims);
}
