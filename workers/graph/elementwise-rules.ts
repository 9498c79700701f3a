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
  UnprovenError,
} from "./abstract-tensor.js";
import { lengthRules } from "./length-rules.js";

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

/** Whole numbers stay what they are. */
const sameElements: Rule = (operation) => {
  const value = lengthsAt(operation, 0);
  const whole = value.kind === "fixed" && value.elements?.every(({ factor }) => Number.isInteger(factor));
  return whole ? value : unary(operation);
};

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
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Mod Mul Or PRelu " +
      "Pow Sub Where Xor",
  ),
  ...each(nary, "Max Mean Min Sum StringConcat"),
  ...each(parametrized, "Clip CastLike"),
  ...each(sameElements, "Cast Ceil Floor Identity Round"),
  ...each(quantization, "QuantizeLinear DequantizeLinear"),
  ["Dropout", dropout],
]);
