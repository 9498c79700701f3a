import {
  broadcast,
  expectFixed,
  fixed,
  input,
  type Operation,
  type Rule,
  rows,
  type Shaped,
  shaped,
  UnprovenError,
} from "./abstract-tensor.js";
import { isOne, numberIn, one, product, type Size, sameSize, sizeOf } from "./sizes.js";

/** A table of rows; a one-dimensional input counts as a single row. */
function table(operation: Operation, i = 0): Shaped {
  const data = shaped(operation, i);
  if (data.kind === "rows" && (data.dims.length !== 2 || data.axis !== 0)) {
    throw new UnprovenError("its rows do not lie along the first of two axes");
  }
  return data;
}

/** Several columns for each row. */
const columns = (operation: Operation, data: Shaped, width: Size = operation.newLength()) =>
  data.kind === "fixed" ? fixed(null) : rows([data.dims[0] as Size, width], 0);

const classifier: Rule = (operation) => {
  const data = table(operation);
  const labels = data.kind === "fixed" ? fixed(null) : rows([data.dims[0] as Size], 0);
  return [labels, columns(operation, data)];
};

const regressor: Rule = (operation) => columns(operation, table(operation));

/** A regressor with its number of targets as an attribute. */
const regressorOf =
  (attribute: string, preset: number): Rule =>
  (operation) => {
    const targets = operation.int(attribute, preset);
    return columns(operation, table(operation), targets > 0 ? sizeOf(targets) : operation.newLength());
  };

/** Parameters for each column of the table. */
const byColumn: Rule = (operation) => {
  const data = table(operation);
  return data.kind === "fixed" ? fixed(data.dims) : data;
};

const elementwise: Rule = (operation) => broadcast(operation, [input(operation, 0)]);

/** Columns of tables, side by side. */
const vectorizer: Rule = (operation) => {
  const tables = operation.inputs.map((_, i) => table(operation, i));
  const [first] = tables;
  if (first === undefined) throw new UnprovenError("it has no input");
  if (tables.every(({ kind }) => kind === "fixed")) return fixed(null);
  const alike = tables.every(({ dims, kind }) => kind === "rows" && sameSize(dims[0] as Size, first.dims[0] as Size));
  if (!alike) throw new UnprovenError("it joins rows with a tensor that is not one entry a row");
  return columns(operation, first);
};

/** Picks along the last axis: columns of rows, or entries of a fixed tensor by an index in each row. */
const extractor: Rule = (operation) => {
  const data = shaped(operation, 0);
  const indices = shaped(operation, 1);
  if (data.kind === "fixed" && indices.kind === "rows") {
    if (!indices.dims.slice(0, indices.axis).every(isOne)) throw new UnprovenError("its indices are not row by row");
    const before = data.dims.length > 1 ? data.dims.slice(0, -1) : [one];
    return rows([...before, product(indices.dims)], before.length);
  }
  expectFixed(operation, 1);
  const last = data.dims.length - 1;
  if (data.kind === "fixed") return fixed(null);
  if (data.axis === last) throw new UnprovenError("it picks along the row axis");
  const picked = shaped(operation, 1).dims;
  const count = picked.every((length) => numberIn(length) !== null)
    ? sizeOf(picked.reduce((size, length) => size * (numberIn(length) as number), 1))
    : operation.newLength();
  return rows([...data.dims.slice(0, -1), count], data.axis);
};

const oneHotEncoder: Rule = (operation) => {
  const data = shaped(operation, 0);
  const count = Math.max(operation.count("cats_int64s"), operation.count("cats_strings"));
  const dims = [...data.dims, sizeOf(count)];
  return data.kind === "fixed" ? fixed(dims) : rows(dims, data.axis);
};

const names = (list: string, rule: Rule): [string, Rule][] => list.split(" ").map((name) => [name, rule]);

/** The operators of `ai.onnx.ml` that work row by row. */
export const classicalRules: Record<string, Rule> = Object.fromEntries([
  ...names("LinearClassifier SVMClassifier TreeEnsembleClassifier", classifier),
  ["LinearRegressor", regressorOf("targets", 1)],
  ...names("TreeEnsembleRegressor TreeEnsemble", regressorOf("n_targets", 0)),
  ["SVMRegressor", regressor],
  ...names("Imputer Normalizer Scaler", byColumn),
  ...names("Binarizer CategoryMapper LabelEncoder", elementwise),
  ["FeatureVectorizer", vectorizer],
  ["ArrayFeatureExtractor", extractor],
  ["OneHotEncoder", oneHotEncoder],
]);

/** `TfIdfVectorizer` of ONNX's own domain belongs here: a row of counts for each row. */
export const textRules: Record<string, Rule> = { TfIdfVectorizer: regressor };
