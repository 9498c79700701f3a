import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { type Feature, featuresOf } from "@millrace/shared/packing/pack-tabular.js";
import { textTensor } from "@millrace/shared/packing/pack-text.js";
import { type Dtype, elementBytes, integerRange } from "@millrace/shared/tensors/dtype.js";
import { toFloat16Bits } from "@millrace/shared/tensors/float16.js";
import { type PackedTensor, packStrings } from "@millrace/shared/tensors/tensor-pack.js";

/** An input for the trial. Inputs of one `kind` are of the same magnitude; an outlier mainly accompanies others. */
export interface TriedInput {
  kind: string;
  readonly tensors: PackedTensor[];
}

export const outlier = "outlier";

/** Magnitudes of made numbers, and the number of inputs for each. */
const magnitudes = [
  [1, 3],
  [0.01, 2],
  [100, 2],
] as const;
const outlierMagnitude = 10_000;
/** Lengths for free dimensions: two without a common factor, and a longer one. */
const lengths = [3, 8, 32];
/** Limit of the elements of a made tensor. */
const mostElements = 4_000_000;

/** Inputs before preparation, of varied magnitudes; for image models, inputs as taken by the ONNX file. */
export function makeInputs(
  manifest: Manifest,
  inputs: readonly TensorSpec[],
): { prepared: boolean; made: TriedInput[] } {
  const random = randomNumbers(1);
  switch (manifest.kind) {
    case "tabular": {
      const features = featuresOf(manifest);
      const name = manifest.input.tensor;
      const made = kinds().map(({ kind, magnitude }) => {
        const row = Float32Array.from(features, (feature) => featureValue(feature, magnitude, random));
        const tensor: PackedTensor = { name, dtype: "float32", shape: [1, features.length], bytes: bytesOf(row) };
        return { kind, tensors: [tensor] };
      });
      return { prepared: false, made };
    }
    case "text":
      return { prepared: false, made: texts.map((text) => ({ kind: "text", tensors: [packedText(text)] })) };
    default: {
      const open = inputs.some(({ shape }) => shape.some((length, d) => d > 0 && typeof length === "string"));
      const made = (open ? lengths : lengths.slice(0, 1)).flatMap((length) => {
        const all = [...kinds(), { kind: "of 1", magnitude: 1, rows: 2 }];
        return all.flatMap(({ kind, magnitude, rows = 1 }, i) => {
          const shapes = inputs.map(({ shape }) => shape.map((d, axis) => madeLength(d, axis, rows, length)));
          if (shapes.some((shape) => count(shape) > mostElements)) return [];
          const make = () =>
            inputs.map(({ dtype, name }, t) => {
              const shape = shapes[t] as number[];
              const random = randomNumbers(100 * i + t);
              return { name, dtype, shape, bytes: elements(dtype, count(shape), magnitude, i, random) };
            });
          return [onceMade(`${kind}, length ${length}`, make)];
        });
      });
      return { prepared: true, made };
    }
  }
}

/** An input whose tensors are made on first use, since large ones take time and few may be needed. */
function onceMade(kind: string, make: () => PackedTensor[]): TriedInput {
  let made: PackedTensor[] | null = null;
  return {
    kind,
    get tensors() {
      made ??= make();
      return made;
    },
  };
}

function kinds(): { kind: string; magnitude: number; rows?: number }[] {
  const of = magnitudes.flatMap(([magnitude, times]) =>
    Array.from({ length: times }, () => ({ kind: `of ${magnitude}`, magnitude })),
  );
  return [...of, { kind: "of 1", magnitude: 0 }, { kind: outlier, magnitude: outlierMagnitude }];
}

export const isOutlier = ({ kind }: TriedInput): boolean => kind.startsWith(outlier);

const count = (shape: readonly number[]): number => shape.reduce((size, length) => size * length, 1);

const madeLength = (declared: number | string, axis: number, rows: number, length: number): number =>
  typeof declared === "number" ? declared : axis === 0 ? rows : length;

/** Texts of one to many words; two have the same number of words. */
const texts = [
  "a",
  "the card",
  "my card has not arrived",
  "the film was not good",
  "What is the exchange rate, and why was I charged 3.50 twice?",
  "very ".repeat(30).trim(),
];

const packedText = (text: string): PackedTensor => ({
  name: textTensor,
  dtype: "string",
  shape: [1],
  bytes: packStrings([text]),
});

/** A value in the range of a feature. */
function featureValue({ max, min, part, type, values }: Feature, magnitude: number, random: Random): number {
  if (type === "category") return Math.floor(random.uniform() * (values?.length ?? 1));
  if (type === "date") {
    const most = part === "day_of_week" ? 7 : part === "epoch_days" ? 20_000 : 86_400;
    return Math.floor(random.uniform() * most);
  }
  const value = random.normal() * magnitude;
  const [least, most] = [min ?? Number.NEGATIVE_INFINITY, max ?? Number.POSITIVE_INFINITY];
  if (value >= least && value <= most) return value;
  if (Number.isFinite(least) && Number.isFinite(most)) return least + random.uniform() * (most - least);
  return Number.isFinite(least) ? least + Math.abs(value) : most - Math.abs(value);
}

/** Integers stay small, within the size of any embedding table; the upper bound depends on `i`, the input's place. */
function elements(dtype: Dtype, length: number, magnitude: number, i: number, random: Random): Uint8Array {
  if (dtype === "string") {
    return packStrings(Array.from({ length }, () => texts[Math.floor(random.uniform() * 3)] as string));
  }
  const size = elementBytes[dtype];
  const bytes = new Uint8Array(length * size);
  const view = new DataView(bytes.buffer);
  const limit = integerRange[dtype]?.[1] ?? 1n;
  const most = Math.min(Number(limit), [1, 1, 3, 1, 20, 3, 1, 1, 3][i] ?? 1);
  for (let at = 0; at < bytes.length; at += size) {
    if (dtype === "float32") view.setFloat32(at, random.normal() * magnitude, true);
    else if (dtype === "float64") view.setFloat64(at, random.normal() * magnitude, true);
    else if (dtype === "float16") view.setUint16(at, toFloat16Bits(random.normal() * Math.min(magnitude, 1000)), true);
    else if (dtype === "uint8" && magnitude > 1) view.setUint8(at, Math.floor(random.uniform() * 256));
    // Little-endian: a small number is its first byte.
    else view.setUint8(at, Math.floor(random.uniform() * ((dtype === "bool" ? 1 : most) + 1)));
  }
  return bytes;
}

const bytesOf = ({ buffer, byteLength, byteOffset }: Float32Array): Uint8Array =>
  new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);

interface Random {
  /** In [0, 1). */
  uniform(): number;
  /** Normally distributed, with mean 0 and deviation 1. */
  normal(): number;
}

/** The same numbers each time (mulberry32), so that a refusal is repeatable. */
function randomNumbers(seed: number): Random {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}
