import type { classifierHead } from "@millrace/shared/models/manifest-output.js";
import type { z } from "zod";

type Activation = NonNullable<z.infer<typeof classifierHead>["activation"]> | "probabilities";

/** Turns the numbers of one row into probabilities. */
export type Activate = (values: ArrayLike<number>, from: number, width: number) => ArrayLike<number>;

/** The function of an activation; its result is a new array from 0. Null where numbers stay as they are. */
export function activationOf(activation: Activation | undefined): Activate | null {
  if (activation === "softmax") return softmax;
  return activation === "sigmoid" ? sigmoid : null;
}

function softmax(values: ArrayLike<number>, from: number, width: number): Float64Array {
  const shares = new Float64Array(width);
  let largest = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < width; c++) largest = Math.max(largest, values[from + c] as number);
  let sum = 0;
  for (let c = 0; c < width; c++) {
    shares[c] = Math.exp((values[from + c] as number) - largest);
    sum += shares[c] as number;
  }
  for (let c = 0; c < width; c++) shares[c] = (shares[c] as number) / sum;
  return shares;
}

function sigmoid(values: ArrayLike<number>, from: number, width: number): Float64Array {
  const shares = new Float64Array(width);
  for (let c = 0; c < width; c++) shares[c] = 1 / (1 + Math.exp(-(values[from + c] as number)));
  return shares;
}

const slack = 1e-3;
const sumSlack = 1e-2;

/**
 * Whether the numbers can be the probabilities of exclusive classes. A row with a NaN counts as probabilities: each run
 * reports it.
 */
export function areProbabilities(values: ArrayLike<number>, from: number, width: number): boolean {
  let sum = 0;
  for (let c = 0; c < width; c++) {
    const value = values[from + c] as number;
    if (Number.isNaN(value)) return true;
    if (value < -slack || value > 1 + slack) return false;
    sum += value;
  }
  return Math.abs(sum - 1) <= sumSlack;
}
