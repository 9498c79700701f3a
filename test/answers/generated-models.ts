import fc from "fast-check";
import { asJson, type Feeds, type MadeModel } from "../support/models/made-models.js";
import { type ConstantTensor, floats, ints, type ModelFile, type NodeFile, node } from "../support/models/onnx-file.js";

/** One input of a generated model, in every form of the API and as feeds of ONNX Runtime. */
export interface GeneratedRow {
  /** For `/v1`; a tabular input as an array and as an object, which may omit features with a default. */
  forms: unknown[];
  /** A line of CSV, for tabular models. */
  csv: string | null;
  /** For `/v2`. */
  tensors: Feeds;
  /** For the ONNX file. */
  feeds: Feeds;
}

/** The head's expected output, computed from ONNX Runtime's outputs. */
export type Expected = (outputs: Feeds) => unknown;

export interface GeneratedModel extends MadeModel {
  rows: GeneratedRow[];
  expected: Expected;
  /** Header of its CSV; null: the model takes no CSV. */
  header: string | null;
}

type Feature = {
  name: string;
  type?: string;
  values?: string[];
  part?: string;
  default?: number | string;
  min?: number;
};

const names = ["a", 'Flow, "Bytes"/s', " padded ", "größe", "__proto__", "constructor", "温度 (°C)", "index"];
const words = ["Private", " State-gov", "a,b", 'say "no"', "line", "Ω"];

const number = fc.double({ min: -100, max: 100, noNaN: true }).map((value) => (Object.is(value, -0) ? 0 : value));
const weights = (rows: number, columns: number): fc.Arbitrary<ConstantTensor> =>
  fc
    .array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: rows * columns, maxLength: rows * columns })
    .map((data) => floats([rows, columns], data));

const featureArb = (name: string): fc.Arbitrary<Feature> =>
  fc.oneof(
    fc.constant<Feature>({ name }),
    number.map<Feature>((preset) => ({ name, default: preset })),
    fc.constant<Feature>({ name, min: -100, default: 7 }),
    fc
      .tuple(fc.uniqueArray(fc.constantFrom(...words), { minLength: 1, maxLength: 4 }), fc.boolean())
      .map<Feature>(([values, hasDefault]) => ({
        ...{ name, type: "category", values },
        ...(hasDefault && { default: values[0] as string }),
      })),
    fc
      .constantFrom("second_of_day", "day_of_week", "epoch_days")
      .map<Feature>((part) => ({ name, type: "date", part })),
  );

/** A valid value of a feature, as sent and as the model's number; null: left out, for the default. */
const valueArb = (feature: Feature): fc.Arbitrary<{ sent: number | string | null; seen: number }> => {
  const seenOf = (value: number | string): number => {
    if (feature.type === "category") return (feature.values ?? []).indexOf(value as string);
    if (feature.type !== "date") return Math.fround(value as number);
    const ms = Date.parse(value as string);
    const days = Math.floor(ms / 86_400_000);
    if (feature.part === "epoch_days") return days;
    return Math.fround(feature.part === "day_of_week" ? (days + 3) % 7 : (ms - days * 86_400_000) / 1000);
  };
  const sent: fc.Arbitrary<number | string> =
    feature.type === "category"
      ? fc.constantFrom(...(feature.values as string[]))
      : feature.type === "date"
        ? fc.integer({ min: 0, max: 2_000_000_000 }).map((second) => new Date(second * 1000).toISOString())
        : number;
  const given = sent.map((value) => ({ sent: value, seen: seenOf(value) }));
  const preset = feature.default;
  return preset === undefined
    ? given
    : fc.oneof(
        { weight: 3, arbitrary: given },
        { weight: 1, arbitrary: fc.constant({ sent: null, seen: seenOf(preset) }) },
      );
};

const derivedOps: Record<string, (a: number, b: number) => number> = {
  sum: (a, b) => a + b,
  difference: (a, b) => a - b,
  product: (a, b) => a * b,
  max: Math.max,
};

const csvField = (value: number | string | null): string => {
  const text = value === null ? "" : String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** Nodes from a table of `width` columns to one of `classes`: with independent rows, or rows that see each other. */
const bodyArb = (
  width: number,
  columns: number,
): fc.Arbitrary<{ nodes: NodeFile[]; constants: Record<string, ConstantTensor> }> =>
  fc
    .record({
      kind: fc.constantFrom("linear", "mlp", "tree", "centred", "quantized", "peak"),
      first: weights(width, 4),
      second: weights(4, columns),
      direct: weights(width, columns),
    })
    .map(({ direct, first, kind, second }) => {
      const small: Record<string, ConstantTensor> = { w: direct, scale: floats([], [0.02]) };
      const last = (from: string): NodeFile[] => [
        node("MatMul", [from, "w"], ["m"]),
        node("Mul", ["m", "scale"], ["z"]),
      ];
      switch (kind) {
        case "mlp":
          return {
            nodes: [
              node("MatMul", ["x", "v"], ["h"]),
              node("Relu", ["h"], ["r"]),
              node("MatMul", ["r", "u"], ["m"]),
              node("Mul", ["m", "scale"], ["z"]),
            ],
            constants: { v: first, u: second, scale: floats([], [0.02]) },
          };
        case "tree":
          return {
            nodes: [
              node("Scaler", ["x"], ["s"], { offset: { floats: [0] }, scale: { floats: [0.5] } }, "ai.onnx.ml"),
              ...last("s"),
            ],
            constants: small,
          };
        case "centred":
          return {
            nodes: [
              node("ReduceMean", ["x"], ["c"], { axes: [0], keepdims: 1 }),
              node("Sub", ["x", "c"], ["s"]),
              ...last("s"),
            ],
            constants: small,
          };
        case "quantized":
          return {
            nodes: [
              node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
              node("DequantizeLinear", ["q", "qs", "qz"], ["s"]),
              ...last("s"),
            ],
            constants: small,
          };
        case "peak":
          return {
            nodes: [
              node("Abs", ["x"], ["a"]),
              node("ReduceMax", ["a"], ["peak"], { keepdims: 0 }),
              node("Add", ["peak", "one"], ["d"]),
              node("Div", ["x", "d"], ["s"]),
              ...last("s"),
            ],
            constants: { ...small, one: floats([], [1]) },
          };
        default:
          return { nodes: last("x"), constants: small };
      }
    });

const onnxType = { float32: 1, float64: 11, float16: 10 } as const;

interface HeadCase {
  columns: number;
  output: object;
  ending: NodeFile[];
  shape: (number | string)[];
  expected: Expected;
}

const values = (outputs: Feeds): number[] => (outputs.y as Feeds[string]).data as number[];

const headArb = (dtype: keyof typeof onnxType): fc.Arbitrary<HeadCase> => {
  const cast = (from: string) => node("Cast", [from], ["y"], { to: onnxType[dtype] });
  const labels = (count: number) => ["BENIGN", "x,y", "Ä", "__proto__", "0"].slice(0, count);
  const keyed = (keys: string[], of: (c: number) => unknown) =>
    Object.fromEntries(keys.map((key, c) => [key, of(c)] as const));
  return fc.oneof(
    fc.integer({ min: 2, max: 5 }).chain((count) =>
      fc.boolean().map((logits): HeadCase => {
        const own = labels(count);
        return {
          columns: count,
          shape: ["n", count],
          output: { head: "classifier", probabilities: "y", labels: own, ...(logits && { activation: "softmax" }) },
          ending: logits ? [cast("z")] : [node("Softmax", ["z"], ["p"], { axis: 1 }), cast("p")],
          expected(outputs) {
            const raw = values(outputs);
            // Large logits would overflow; subtracting their maximum does not change a softmax.
            const largest = Math.max(...raw);
            const exps = raw.map((value) => Math.exp(value - largest));
            const sum = exps.reduce((total, value) => total + value, 0);
            const probabilities = logits ? exps.map((value) => value / sum) : raw;
            const best = probabilities.indexOf(Math.max(...probabilities));
            return {
              label: own[best],
              confidence: probabilities[best],
              probabilities: keyed(own, (c) => probabilities[c]),
            };
          },
        };
      }),
    ),
    fc.boolean().map(
      (flat): HeadCase => ({
        columns: 1,
        shape: flat ? ["n"] : ["n", 1],
        output: { head: "regressor", value: "y" },
        ending: flat ? [node("Squeeze", ["z", "last"], ["f"]), cast("f")] : [cast("z")],
        expected: (outputs) => ({ value: values(outputs)[0] }),
      }),
    ),
    fc.constant<HeadCase>({
      columns: 3,
      shape: ["n", 3],
      output: { head: "regressor", value: "y", targets: ["low", "mid", "__proto__"] },
      ending: [cast("z")],
      expected: (outputs) => ({ values: keyed(["low", "mid", "__proto__"], (c) => values(outputs)[c]) }),
    }),
    fc.constant<HeadCase>({
      columns: 1,
      shape: ["n", 1],
      output: { head: "anomaly", score: "y", threshold: 0.125 },
      ending: [cast("z")],
      expected: (outputs) => ({
        is_anomaly: (values(outputs)[0] as number) >= 0.125,
        score: values(outputs)[0],
        threshold: 0.125,
      }),
    }),
    fc.constant<HeadCase>({
      columns: 3,
      shape: ["n", 3],
      output: { head: "multi_label", probabilities: "y", labels: ["p", "q", "r"], threshold: [0.5, 0.25, 0.75] },
      ending: [node("Sigmoid", ["z"], ["p"]), cast("p")],
      expected: (outputs) => ({
        labels: ["p", "q", "r"].filter((_, c) => (values(outputs)[c] as number) >= ([0.5, 0.25, 0.75][c] as number)),
        scores: keyed(["p", "q", "r"], (c) => values(outputs)[c]),
      }),
    }),
  );
};

/** A tabular model with features of all types, derived columns, any head, and rows. */
export const tabularModel = (rowCount: number): fc.Arbitrary<GeneratedModel> =>
  fc
    .record({
      used: fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 6 }),
      dtype: fc.constantFrom("float32", "float64", "float16" as const) as fc.Arbitrary<keyof typeof onnxType>,
      bulkRows: fc.constantFrom(1, 2, 1000),
      maxBatchRows: fc.constantFrom(1, 4, 64),
      derives: fc.constantFrom(null, ...Object.keys(derivedOps)),
    })
    .chain(({ bulkRows, derives, dtype, maxBatchRows, used }) =>
      fc.record({ features: fc.tuple(...used.map(featureArb)), head: headArb(dtype) }).chain(({ features, head }) => {
        const width = features.length + (derives === null ? 0 : 1);
        return fc
          .record({
            body: bodyArb(width, head.columns),
            rows: fc.array(fc.tuple(fc.tuple(...features.map(valueArb)), fc.boolean()), {
              minLength: rowCount,
              maxLength: rowCount,
            }),
          })
          .map(({ body, rows }): GeneratedModel => {
            const graph: ModelFile = {
              nodes: [...body.nodes, ...head.ending],
              constants: { ...body.constants, last: ints(1) },
              inputs: { x: ["float32", ["n", width]] },
              outputs: { y: [dtype, head.shape] },
            };
            const derived =
              derives === null ? [] : [{ name: "derived", op: derives, of: [used[0], used[used.length - 1]] }];
            const manifest = {
              kind: "tabular",
              input: { tensor: "x", features, derived },
              output: head.output,
              batching: { bulk_rows: bulkRows, max_batch_rows: maxBatchRows },
            };
            return {
              ...{ graph, manifest, expected: head.expected },
              header: used.map(csvField).join(","),
              rows: rows.map(([cells, reversed]) => rowOf(features, cells, derives, reversed)),
            };
          });
      }),
    );

function rowOf(
  features: readonly Feature[],
  cells: readonly { sent: number | string | null; seen: number }[],
  derives: string | null,
  reversed: boolean,
): GeneratedRow {
  const seen = cells.map((cell) => cell.seen);
  const all = [...seen];
  if (derives !== null) {
    const value = (derivedOps[derives] as (a: number, b: number) => number)(seen[0] as number, seen.at(-1) as number);
    all.push(Math.fround(value));
  }
  const members = features.flatMap(({ name }, i) => {
    const { sent } = cells[i] as (typeof cells)[number];
    return sent === null ? [] : [[name, sent] as const];
  });
  return {
    forms: [cells.map(({ sent }) => sent), Object.fromEntries(reversed ? members.reverse() : members)],
    csv: cells.map(({ sent }) => csvField(sent)).join(","),
    tensors: { x: { dtype: "float32", dims: [1, seen.length], data: seen } },
    feeds: { x: { dtype: "float32", dims: [1, all.length], data: all } },
  };
}

/** A tensor model of several dtypes, with free dimensions and one to three rows a request. */
export const tensorModel = (rowCount: number): fc.Arbitrary<GeneratedModel> =>
  fc
    .record({
      kind: fc.constantFrom("apart", "sums", "place", "softmax", "table"),
      maxBatchRows: fc.constantFrom(1, 4, 64),
      requests: fc.array(
        fc.record({
          rows: fc.integer({ min: 1, max: 3 }),
          length: fc.integer({ min: 1, max: 3 }),
          seed: fc.array(number, { minLength: 9, maxLength: 9 }),
          ids: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 3, maxLength: 3 }),
        }),
        { minLength: rowCount, maxLength: rowCount },
      ),
    })
    .map(({ kind, maxBatchRows, requests }): GeneratedModel => {
      const bodies: Record<string, NodeFile[]> = {
        apart: [node("Add", ["x", "column"], ["y"])],
        sums: [node("Add", ["x", "column"], ["s"]), node("ReduceSum", ["s", "last"], ["y"], { keepdims: 1 })],
        place: [node("Add", ["x", "column"], ["s"]), node("CumSum", ["s", "first"], ["y"])],
        softmax: [node("Add", ["x", "column"], ["s"]), node("Softmax", ["s"], ["y"], { axis: 0 })],
        table: [
          node("Gather", ["rows", "__proto__"], ["g"]),
          node("Mul", ["g", "column"], ["m"]),
          node("Add", ["x", "m"], ["y"]),
        ],
      };
      const graph: ModelFile = {
        nodes: [
          node("Cast", ["__proto__"], ["f"], { to: 1 }),
          node("Unsqueeze", ["f", "last"], ["column"]),
          ...(bodies[kind] as NodeFile[]),
          node("Mul", ["__proto__", "__proto__"], ["squares"]),
        ],
        constants: {
          ...{ last: ints(1), first: { dtype: "int64", dims: [], data: [0] } as ConstantTensor },
          rows: floats([4, 1], [1, -2, 3, 0.5]),
        },
        inputs: Object.fromEntries([
          ["x", ["float32", ["?", "?"]]],
          ["__proto__", ["int64", ["?"]]],
        ]),
        outputs: { y: ["float32", null], squares: ["int64", ["m"]] },
      };
      const rows = requests.map(({ ids, length, rows: count, seed }): GeneratedRow => {
        const x = { dtype: "float32", dims: [count, length], data: seed.slice(0, count * length).map(Math.fround) };
        const own = { dtype: "int64", dims: [count], data: ids.slice(0, count) };
        const feeds = Object.fromEntries([
          ["x", x],
          ["__proto__", own],
        ]) as Feeds;
        return { forms: [asJson(feeds)], csv: null, tensors: feeds, feeds };
      });
      return {
        graph,
        manifest: { kind: "tensor", batching: { max_batch_rows: maxBatchRows } },
        rows,
        expected: (outputs) => outputs,
        header: null,
      };
    });
