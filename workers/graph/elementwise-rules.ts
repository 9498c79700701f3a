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

/** Each element of the first input becomes one, whatever its neighbours are. */
const unary: Rule = (operation) => {
  const value = input(operation, 0);
  const made = broadcast(operation, [value]);
  if (value.kind === "rows" || value.elements === null) return made;
  return fixed(
    value.dims,
    value.elements.map(() => operation.newNumber()),
  );
};

/** Elements of all inputs, held together from the last dimension on, become one. */
const nary: Rule = (operation) =>
  broadcast(
    operation,
    operation.inputs.flatMap((value, i) => (value === null ? [] : [input(operation, i)])),
  );

/** As `nary`. Before version 8 nothing was stretched, and ONNX Runtime reads on beyond the end of what is shorter. */
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

/** As `unary`; whatever else it takes must be no row's. */
const parametrized: Rule = (operation) => {
  expectFixed(operation, ...[...operation.inputs.keys()].filter((i) => i > 0));
  return unary(operation);
};

/** Before version 7 second inputs were stretched as attributes said; version 6 and older are not looked into. */
const arithmetic: Rule = (operation) => {
  if (operation.opset < 7) throw new UnprovenError("its version is older than 7");
  return lengthRules[operation.type]?.(operation) ?? nary(operation);
};

/** Whole numbers stay what they are, but for types of numbers that do not hold them all. */
const sameElements: Rule = (operation) => {
  const value = lengthsAt(operation, 0);
  if (operation.type === "Cast" && value.kind === "fixed" && !fits(value, operation.int("to", 0))) {
    return unary(operation);
  }
  const whole = value.kind === "fixed" && value.elements?.every(({ factor }) => Number.isInteger(factor));
  return whole ? value : unary(operation);
};

/** Whether a type, by its number in `onnx.proto`, holds these numbers: int32, int64, double, and float up to 2^24. */
const fits = ({ elements }: Fixed, type: number): boolean =>
  elements === null ||
  (elements.every(isModest) &&
    ([6, 7, 11].includes(type) || (type === 1 && elements.every(({ factor }) => Math.abs(factor) <= 2 ** 24))));

/** Dropping something out is for training; else it hands on what it gets, and a mask of ones. */
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

/** Scales and zero points are numbers for all, or one each along an axis that is not that of the rows. */
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
        throw new UnprovenError("its scales are not one for all, nor one along an axis");
      const [count] = dims;
      const axis = operation.int("axis", 1);
      const own = axis < 0 ? axis + value.dims.length : axis;
      if (count !== undefined && !(count.symbols.length === 0 && count.factor === 1) && own === value.axis) {
        throw new UnprovenError("its scales are along the axis of the rows");
      }
    }
  }
  return broadcast(operation, [value]);
};

const each = (rule: Rule, names: string): [string, Rule][] => names.split(/\s+/).map((name) => [name, rule]);

/** Operators whose every output element depends on the elements at its own place. */
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
