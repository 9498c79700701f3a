import {
  anyAxis,
  broadcastDims,
  type GraphBuilder,
  type GraphTensor,
  hasSqueezeWithoutAxes,
  mayHaveEmptyTensor,
  type Step,
} from "./graph-builder.js";

const mostElements = 2000;

const matMul: Step = (graph, random) => {
  const x = graph.float(random, 1);
  if (x === null) return;
  const left = random.below(3) > 0;
  const summed = left || x.dims.length === 1 ? x.dims.length - 1 : x.dims.length - 2;
  const depth = x.dims[summed] as number;
  const fits = ({ dims, dtype }: GraphTensor) =>
    dtype === "float32" && dims.length >= 2 && dims[left ? dims.length - 2 : dims.length - 1] === depth;
  const other = random.below(2) === 0 ? graph.pick(random, fits) : null;
  const width = random.pick([1, 2, 3]);
  const leading = random.below(4) === 0 ? x.dims.slice(0, -2).map((n) => (random.below(2) === 0 ? 1 : n)) : [];
  const dims = other?.dims ?? [...leading, ...(left ? [depth, width] : [width, depth])];
  const name = other?.name ?? graph.floats(random, dims);
  const made = left ? productDims(x.dims, dims) : productDims(dims, x.dims);
  if (made === null) return;
  graph.add("MatMul", left ? [x.name, name] : [name, x.name], { dtype: "float32", dims: made });
};

function productDims(a: readonly number[], b: readonly number[]): number[] | null {
  const before = broadcastDims(a.slice(0, -2), b.slice(0, -2));
  if (before === null) return null;
  return [...before, ...(a.length > 1 ? [a.at(-2) as number] : []), ...(b.length > 1 ? [b.at(-1) as number] : [])];
}

const gemm: Step = (graph, random) => {
  const x = graph.float(random, 2, 2);
  if (x === null) return;
  const [transA, transB, swapped] = [random.below(2), random.below(2), random.below(4) === 0];
  const [height, depth] = (transA === 1 ? [...x.dims].reverse() : x.dims) as [number, number];
  const width = random.pick([1, 2, 3]);
  if (swapped) {
    // The rows are in the second factor.
    const [k, n] = (transB === 1 ? [...x.dims].reverse() : x.dims) as [number, number];
    graph.add("Gemm", [graph.floats(random, [width, k]), x.name], { dtype: "float32", dims: [width, n] }, { transB });
    return;
  }
  const weights = graph.floats(random, transB === 1 ? [width, depth] : [depth, width]);
  const bias = graph.floats(random, random.pick([[width], [1, width], [height, 1], [1], [height, width]]));
  const inputs = graph.opset >= 11 && random.below(2) === 0 ? [x.name, weights] : [x.name, weights, bias];
  graph.add("Gemm", inputs, { dtype: "float32", dims: [height, width] }, { transA, transB });
};

const einsum: Step = (graph, random) => {
  const x = graph.float(random, 2, 4);
  if (x === null || graph.opset < 12 || hasSqueezeWithoutAxes(graph)) return;
  const letters = [..."abcd"].slice(0, x.dims.length);
  const { axis } = anyAxis(random, x.dims.length);
  const result = letters.filter((_, d) => d !== axis).sort(() => random.unit() - 0.5);
  const second = random.pick([[letters[axis] as string], [letters[axis] as string, "e"], letters]);
  const length = (letter: string) => (letter === "e" ? 2 : (x.dims[letters.indexOf(letter)] as number));
  const dims = second.map((letter) => (random.below(5) === 0 ? 1 : length(letter)));
  const out = second.includes("e") ? ["e", ...result] : result;
  graph.add(
    "Einsum",
    [x.name, graph.floats(random, dims)],
    { dtype: "float32", dims: out.map(length) },
    { equation: `${letters.join("")},${second.join("")}->${out.join("")}` },
  );
};

const convolution: Step = (graph, random) => {
  const x = graph.float(random, 3, 4);
  if (x === null) return;
  const [count, channels, ...sides] = x.dims as [number, number, ...number[]];
  const made = (own: number, lengths: number[]) => ({ dtype: "float32", dims: [count, own, ...lengths] }) as const;
  const way = random.below(5);
  if (way === 0) {
    const filters = graph.floats(random, [2, channels, ...sides.map(() => 1)]);
    graph.add("Conv", [x.name, filters], made(2, sides));
  } else if (way === 1) {
    const filters = graph.floats(random, [2, channels, ...sides.map(() => 3)]);
    graph.add("Conv", [x.name, filters], made(2, sides), { pads: sides.flatMap(() => [1, 1]) });
  } else if (way === 2) {
    const filters = graph.floats(random, [channels, 2, ...sides.map(() => 2)]);
    const strides = sides.map(() => 2);
    graph.add(
      "ConvTranspose",
      [x.name, filters],
      made(
        2,
        sides.map((n) => 2 * n),
      ),
      { strides },
    );
  } else if (way === 3 && sides.every((n) => n >= 2)) {
    const type = random.pick(["MaxPool", "AveragePool", "LpPool"]);
    graph.add(
      type,
      [x.name],
      made(
        channels,
        sides.map((n) => n - 1),
      ),
      { kernel_shape: sides.map(() => 2) },
    );
  } else {
    graph.add(
      random.pick(["GlobalAveragePool", "GlobalMaxPool"]),
      [x.name],
      made(
        channels,
        sides.map(() => 1),
      ),
    );
  }
};

const resize: Step = (graph, random) => {
  const x = graph.float(random, 2, 4);
  if (x === null || graph.opset < 9) return;
  const scales = x.dims.map((_, d) => (d >= 2 || random.below(5) === 0 ? random.pick([1, 2, 0.5, 1.5]) : 1));
  const dims = x.dims.map((length, d) => Math.floor(length * (scales[d] as number)));
  if (dims.includes(0)) return;
  const value = { dtype: "float32", dims } as const;
  const list = () => graph.tensor(random, { dtype: "float32", dims: [scales.length], data: scales });
  const mode = random.pick(["nearest", "nearest", "linear"]);
  if (graph.opset < 10) graph.add("Upsample", [x.name, list()], value, { mode });
  else if (graph.opset < 11) graph.add("Resize", [x.name, list()], value, { mode });
  else if (random.below(2) === 0) graph.add("Resize", [x.name, "", list()], value, { mode });
  else graph.add("Resize", [x.name, "", "", sizesFor(graph, x, dims)], value, { mode });

  function sizesFor(to: GraphBuilder, from: GraphTensor, sizes: readonly number[]): string {
    if (random.below(2) === 0) return to.ints(random, ...sizes);
    const all = to.add("Shape", [from.name], { dtype: "int64", dims: [from.dims.length], numbers: from.dims });
    const first = [all.name, to.ints(random, 0, 1)];
    const kept = to.add("Gather", first, { dtype: "int64", dims: [2], numbers: from.dims.slice(0, 2) });
    const rest = to.ints(random, ...sizes.slice(2));
    const numbers = [...from.dims.slice(0, 2), ...sizes.slice(2)];
    return to.add("Concat", [kept.name, rest], { dtype: "int64", dims: [numbers.length], numbers }, { axis: 0 }).name;
  }
};

const blocks: Step = (graph, random) => {
  const x = graph.float(random, 4, 4);
  if (x === null) return;
  const [count, channels, height, width] = x.dims as [number, number, number, number];
  if (channels % 4 === 0) {
    const dims = [count, channels / 4, 2 * height, 2 * width];
    graph.add("DepthToSpace", [x.name], { dtype: "float32", dims }, { blocksize: 2 });
  } else if (height % 2 === 0 && width % 2 === 0) {
    const dims = [count, 4 * channels, height / 2, width / 2];
    graph.add("SpaceToDepth", [x.name], { dtype: "float32", dims }, { blocksize: 2 });
  }
};

const recurrence: Step = (graph, random) => {
  const x = graph.float(random, 3, 3);
  if (x === null || hasSqueezeWithoutAxes(graph) || mayHaveEmptyTensor(graph)) return;
  const [steps, count, width] = x.dims as [number, number, number];
  const [type, gates] = random.pick([
    ["LSTM", 4],
    ["GRU", 3],
    ["RNN", 1],
  ] as const);
  const direction = random.pick(["forward", "reverse", "bidirectional"]);
  const ways = direction === "bidirectional" ? 2 : 1;
  const weights = [graph.floats(random, [ways, gates * 2, width]), graph.floats(random, [ways, gates * 2, 2])];
  const inputs = [x.name, ...weights];
  const state = graph.pick(random, ({ dims, dtype }) => dtype === "float32" && dims.join() === `${ways},${count},2`);
  if (state !== null) inputs.push("", "", state.name);
  else if (random.below(3) === 0) {
    const lengths = graph.pick(random, (v) => v.dtype === "int64" && v.dims.length === 1 && v.dims[0] === count);
    if (lengths !== null) {
      const short = graph.add("Cast", [lengths.name], { dtype: "int32", dims: lengths.dims }, { to: 6 });
      const least = graph.tensor(random, { dtype: "int32", dims: [], data: [1] });
      if (graph.opset >= 12)
        inputs.push("", graph.add("Max", [short.name, least], { dtype: "int32", dims: [count] }).name);
    } else if (random.below(3) === 0) {
      const own = {
        dtype: "int32",
        dims: [count],
        data: new Array<number>(count).fill(Math.max(1, steps - 1)),
      } as const;
      inputs.push("", graph.tensor(random, own));
    }
  }
  const all = { dtype: "float32", dims: [steps, ways, count, 2] } as const;
  const last = { dtype: "float32", dims: [ways, count, 2] } as const;
  const made = random.pick([[all], [all, last], [null, last]]);
  graph.addMany(type, inputs, made, { hidden_size: 2, direction });
};

const scaler: Step = (graph, random) => {
  const x = graph.float(random, 1, 3);
  if (x === null) return;
  const width = x.dims.at(-1) as number;
  const list = () => ({ floats: Array.from({ length: width }, () => random.unit() + 0.5) });
  const type = random.pick([
    "Scaler",
    "Normalizer",
    "Binarizer",
    "Imputer",
    "LinearRegressor",
    "ArrayFeatureExtractor",
  ]);
  const same = { dtype: "float32", dims: x.dims } as const;
  const add = (inputs: string[], made: { dtype: "float32"; dims: readonly number[] }, attributes: object) =>
    graph.add(type, inputs, made, attributes as never, "ai.onnx.ml");
  if (type === "Scaler") add([x.name], same, { offset: list(), scale: list() });
  else if (type === "Normalizer") add([x.name], same, { norm: random.pick(["MAX", "L1", "L2"]) });
  else if (type === "Binarizer") add([x.name], same, { threshold: { float: 0.1 } });
  else if (type === "Imputer") {
    add([x.name], same, { imputed_value_floats: list(), replaced_value_float: { float: 0 } });
  } else if (type === "LinearRegressor") {
    const dims = [x.dims.length > 1 ? (x.dims[0] as number) : 1, 2];
    const coefficients = { floats: Array.from({ length: 2 * width }, () => random.unit()) };
    add([x.name], { dtype: "float32", dims }, { coefficients, intercepts: { floats: [0.5, 1] }, targets: 2 });
  } else {
    const dims = x.dims.length === 1 ? [1, 2] : [...x.dims.slice(0, -1), 2];
    add([x.name, graph.ints(random, 0, random.below(width))], { dtype: "float32", dims }, {});
  }
};

const vectorizer: Step = (graph, random) => {
  const x = graph.float(random, 1, 2);
  const other = graph.pick(random, ({ dims, dtype }) => dtype === "float32" && dims.length === x?.dims.length);
  if (x === null || other === null || mayHaveEmptyTensor(graph)) return;
  const widths = [x.dims.at(-1) as number, other.dims.at(-1) as number] as const;
  const dims = [x.dims.length > 1 ? (x.dims[0] as number) : 1, widths[0] + widths[1]];
  const made = { dtype: "float32", dims } as const;
  graph.add("FeatureVectorizer", [x.name, other.name], made, { inputdimensions: widths }, "ai.onnx.ml");
};

const isSmall =
  (step: Step): Step =>
  (graph, random) => {
    const largest = Math.max(...graph.values.map(({ dims }) => dims.reduce((size, length) => size * length, 1)));
    if (largest <= mostElements) step(graph, random);
  };

/** Products, convolutions, pooling, recurrent operators, and those of classical models. */
export const linearSteps: readonly Step[] = [
  matMul,
  matMul,
  gemm,
  einsum,
  convolution,
  convolution,
  resize,
  blocks,
  recurrence,
  recurrence,
  scaler,
  vectorizer,
].map(isSmall);
