import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import { type Attribute, type ConstantTensor, ints, node } from "../../support/models/onnx-file.js";
import { type CaseOptions, type OperatorCases, operator, rowCase, transposed, withMoreApart } from "./row-case.js";

const domain = "ai.onnx.ml";
const f = (...rest: number[]) => ["float32", ...rest] as const;
const numbers = (...list: number[]) => ({ floats: list });

/** A tree with two leaves and one split on the first column. */
const tree = (kind: "class" | "target"): Record<string, Attribute> => ({
  nodes_treeids: [0, 0, 0],
  nodes_nodeids: [0, 1, 2],
  nodes_featureids: [0, 0, 0],
  nodes_values: numbers(0.1, 0, 0),
  nodes_modes: { strings: ["BRANCH_LEQ", "LEAF", "LEAF"] },
  nodes_truenodeids: [1, 0, 0],
  nodes_falsenodeids: [2, 0, 0],
  [`${kind}_treeids`]: [0, 0],
  [`${kind}_nodeids`]: [1, 2],
  [`${kind}_ids`]: [0, kind === "class" ? 1 : 0],
  [`${kind}_weights`]: numbers(1, 2),
});

/** A one-dimensional input is a single row, and with rows as columns each row takes part in every output. */
const asColumns: CaseOptions = { before: [transposed("x", "t")], takes: ["t"], inputs: { x: f(2) } };
const asOne: CaseOptions = { inputs: { x: f() } };
const tensor = (dtype: Dtype, ...data: (number | string)[]): Attribute => ({
  tensor: { dtype, dims: [data.length], data } satisfies ConstantTensor,
});

const labels: CaseOptions = { gives: ["label", "y"], outputs: { label: "int64", y: "float32" }, domain };
const binarySvm = {
  classlabels_ints: [0, 1],
  coefficients: numbers(1, -1),
  kernel_type: "LINEAR",
  kernel_params: numbers(0, 0, 0),
  rho: numbers(0.1),
  support_vectors: numbers(1, 0, 1, 0, 1, 0.5),
  vectors_per_class: [1, 1],
};

export const classicalCases: readonly OperatorCases[] = [
  operator(
    "LinearClassifier",
    {
      ...labels,
      with: {
        classlabels_ints: [0, 1, 2],
        coefficients: numbers(1, 0, 2, 0, 1, 1, 2, 1, 0),
        intercepts: numbers(0, 0.1, 0.2),
      },
    },
    {
      inputs: { x: f() },
      with: { classlabels_ints: [0, 1, 2], coefficients: numbers(1, 2, 3, 4, 5, 6), intercepts: numbers(0, 0, 0) },
      checkedByRuns: false,
    },
  ),
  operator("SVMClassifier", { ...labels, with: binarySvm }, { ...asColumns, checkedByRuns: false }),
  operator(
    "TreeEnsembleClassifier",
    { ...labels, with: { ...tree("class"), classlabels_int64s: [0, 1] } },
    { ...asColumns },
  ),
  operator(
    "LinearRegressor",
    { domain, with: { coefficients: numbers(1, 2, 3), intercepts: numbers(0.5) } },
    { ...asOne, with: { coefficients: numbers(1, 2), intercepts: numbers(0.5) }, checkedByRuns: false },
    { ...asColumns, with: { coefficients: numbers(1, 2), intercepts: numbers(0.5) } },
  ),
  operator(
    "SVMRegressor",
    {
      domain,
      with: {
        coefficients: numbers(1, -1),
        kernel_type: "LINEAR",
        kernel_params: numbers(0, 0, 0),
        n_supports: 2,
        rho: numbers(0.1),
        support_vectors: numbers(1, 0, 1, 0, 1, 0.5),
      },
    },
    { ...asColumns, checkedByRuns: false },
  ),
  operator("TreeEnsembleRegressor", { domain, with: { ...tree("target"), n_targets: 1 } }, asColumns),
  operator(
    "TreeEnsemble",
    {
      domain,
      ml: 5,
      with: {
        n_targets: 1,
        tree_roots: [0],
        nodes_modes: tensor("uint8", 0),
        nodes_splits: tensor("float32", 0.1),
        nodes_featureids: [0],
        nodes_truenodeids: [0],
        nodes_falsenodeids: [1],
        nodes_trueleafs: [1],
        nodes_falseleafs: [1],
        leaf_targetids: [0, 0],
        leaf_weights: tensor("float32", 1, 2),
      },
    },
    asColumns,
  ),
  operator(
    "Imputer",
    { domain, with: { imputed_value_floats: numbers(7, 8, 9), replaced_value_float: { float: 0 } } },
    {
      ...asOne,
      with: { imputed_value_floats: numbers(7, 8), replaced_value_float: { float: 0 } },
      checkedByRuns: false,
    },
    { ...asColumns, with: { imputed_value_floats: numbers(7, 8), replaced_value_float: { float: 0 } } },
  ),
  operator("Normalizer", { domain, with: { norm: "L1" } }, asOne, asColumns),
  operator(
    "Scaler",
    { domain, with: { offset: numbers(1, 2, 3), scale: numbers(1, 2, 3) } },
    { ...asOne, with: { offset: numbers(1, 2), scale: numbers(1, 2) } },
    { ...asColumns, with: { offset: numbers(1, 2), scale: numbers(1, 2) } },
  ),
  operator("Binarizer", { domain, with: { threshold: { float: 0.2 } } }, { gives: ["t"], after: [transposed("t")] }),
  operator(
    "CategoryMapper",
    {
      domain,
      inputs: { x: ["string", 2] },
      outputs: { y: "int64" },
      with: { cats_int64s: [5, 6], cats_strings: { strings: ["a", "b"] } },
    },
    { gives: ["t"], after: [transposed("t")] },
  ),
  operator(
    "LabelEncoder",
    {
      domain,
      inputs: { x: ["string", 2] },
      outputs: { y: "int64" },
      with: { keys_strings: { strings: ["a", "b"] }, values_int64s: [5, 6] },
    },
    { gives: ["t"], after: [transposed("t")] },
  ),
  operator(
    "FeatureVectorizer",
    { domain, inputs: { x: f(3), z: f(2) }, with: { inputdimensions: [3, 2] } },
    { inputs: { x: f(), z: f() }, with: { inputdimensions: [1, 1] } },
  ),
  withMoreApart(
    operator(
      "ArrayFeatureExtractor",
      { domain, constants: { at: ints(0, 2) } },
      { inputs: { x: f() }, constants: { at: ints(0) } },
      { before: [transposed("x", "t")], takes: ["t", "at"], constants: { at: ints(0) } },
    ),
    rowCase("ArrayFeatureExtractor", {
      domain,
      inputs: { at: ["int64", 1] },
      constants: { table: ints(10, 11, 12, 13), back: ints(-1) },
      takes: ["table", "at"],
      gives: ["t"],
      after: [node("Reshape", ["t", "back"], ["y"])],
      outputs: { y: "int64" },
    }),
  ),
  operator(
    "OneHotEncoder",
    { domain, inputs: { x: ["int64", 1] }, with: { cats_int64s: [0, 1, 2] } },
    { before: [transposed("x", "t")], takes: ["t"] },
  ),
  operator(
    "TfIdfVectorizer",
    {
      domain: "",
      inputs: { x: ["int64", 4] },
      with: {
        mode: "TF",
        min_gram_length: 1,
        max_gram_length: 2,
        max_skip_count: 0,
        ngram_counts: [0, 2],
        ngram_indexes: [0, 1, 2],
        pool_int64s: [1, 2, 1, 2],
      },
    },
    { inputs: { x: ["int64"] } },
  ),
];
