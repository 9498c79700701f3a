import {
  broadcast,
  expectFixed,
  type Fixed,
  fixed,
  has,
  input,
  lengthsAt,
  numbersOf,
  type Operation,
  type Rows,
  type Rule,
  shaped,
  UnprovenError,
} from "./abstract-tensor.js";
import { lengthRules } from "./length-rules.js";
import { isModest, type Size, sameSize } from "./sizes.js";

/** Each output element depends on one element of the first input. */
const unary: Rule = (operation) => {
  const value = input(operation, 0);
  const made = broadcast(operation, [value]);
  if (value.kind === "rows" || value.elements === null) return made;
  return fixed(
    value.dims,
    value.elements.map(() => operation.newNumber()),
  );
};

/** Combines the elements of all inputs, with dimensions aligned at the last one. */
const nary: Rule = (operation) =>
  broadcast(
    operation,
    operation.inputs.flatMap((value, i) => (value === null ? [] : [input(operation, i)])),
  );

/**
 * As `nary`. Before version 8 there was no broadcasting, and ONNX Runtime reads beyond the end of the shorter input.
 */
const folded: Rule = (operation) => {
  if (operation.opset >= 8) return nary(operation);
  const shapes = operation.inputs.flatMap((value, i) => (value === null ? [] : [shaped(operation, i)]));
  const [first] = shapes;
  const alike = shapes.every(
    ({ dims }) => dims.length === first?.dims.length && dims.every((size, d) => sameSize(size, first.dims[d] as Size)),
  );
  if (!alike) throw new UnprovenError("its version is older than 8, and its shapes differ");
  return nary(operation);
};

/** As `unary`; all other inputs must be fixed. */
const parametrized: Rule = (operation) => {
  expectFixed(operation, ...[...operation.inputs.keys()].filter((i) => i > 0));
  return unary(operation);
};

/** Before version 7, attributes set the broadcasting of second inputs; version 6 and older are not analysed. */
const arithmetic: Rule = (operation) => {
  if (operation.opset < 7) throw new UnprovenError("its version is older than 7");
  return lengthRules[operation.type]?.(operation) ?? nary(operation);
};

/** Whole numbers stay as they are, unless the target type cannot hold them all. */
const sameElements: Rule = (operation) => {
  const value = lengthsAt(operation, 0);
  if (operation.type === "Cast" && value.kind === "fixed" && !fits(value, operation.int("to", 0))) {
    return unary(operation);
  }
  const whole = value.kind === "fixed" && value.elements?.every(({ factor }) => Number.isInteger(factor));
  return whole ? value : unary(operation);
};

/** Whether a dtype, by its number in `onnx.proto`, holds these numbers: int32, int64, double, and float up to 2^24. */
const fits = ({ elements }: Fixed, type: number): boolean =>
  elements === null ||
  (elements.every(isModest) &&
    ([6, 7, 11].includes(type) || (type === 1 && elements.every(({ factor }) => Math.abs(factor) <= 2 ** 24))));

/** Drops elements in training mode only; otherwise passes its input on, with a mask of ones. */
const dropout: Rule = (operation) => {
  const trains =
    operation.opset >= 12 ? isTrue(operation, 2) : operation.opset < 7 && operation.int("is_test", 0) === 0;
  if (trains) throw new UnprovenError("it drops elements at random");
  const value = unary({ ...operation, inputs: operation.inputs.slice(0, 1) }) as Fixed | Rows;
  return [value, value];
};

function isTrue(operation: Operation, i: number): boolean {
  return has(operation, i) && numbersOf(operation, i)?.[0] !== 0;
}

/** Scales and zero points are single numbers, or one for each entry of an axis other than the row axis. */
const quantization: Rule = (operation) => {
  expectFixed(operation, 1, 2);
  const value = input(operation, 0);
  if (value.kind === "rows") {
    for (const i of [1, 2]) {
      const { dims } =
        operation.inputs[i] === null || operation.inputs[i] === undefined
          ? { dims: [] }
          : (input(operation, i) as Fixed);
      if (dims === null || dims.length > 1)
        throw new UnprovenError("its scales are neither one number nor numbers along one axis");
      const [count] = dims;
      const axis = operation.int("axis", 1);
      const own = axis < 0 ? axis + value.dims.length : axis;
      if (count !== undefined && !(count.symbols.length === 0 && count.factor === 1) && own === value.axis) {
        throw new UnprovenError("its scales are along the row axis");
      }
    }
  }
  return broadcast(operation, [value]);
};

const each = (rule: Rule, names: string): [string, Rule][] => names.split(/\s+/).map((name) => [name, rule]);

/** Operators whose every output element depends only on the input elements at its own place. */
export const elementwiseRules: Record<string, Rule> = Object.fromEntries([
  ...each(
    unary,
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Celu Cos Cosh Elu Erf Exp Gelu HardSigmoid HardSwish " +
      "IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Selu Shrink Sigmoid Sign Sin Sinh Softplus " +
      "Softsign Sqrt Swish Tan Tanh ThresholdedRelu RegexFullMatch",
  ),
  ...each(
    arithmetic,
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Mod Mul Or " +
      "PRelu " +
      "Pow Sub Where Xor",
  ),
  ...each(folded, "Max Mean Min Sum"),
  ["StringConcat", nary],
  ...each(parametrized, "Clip CastLike"),
  ...each(sameElements, "Cast Ceil Floor Identity Round"),
  ...each(quantization, "QuantizeLinear DequantizeLinear"),
  ["Dropout", dropout],
]);
