import { rowsOf } from "@millrace/shared/packing/pack-tensors.js";
import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import type { Tensor } from "onnxruntime-node";
import { distance, type Elements, elementsOf, magnitudeOf, tolerance } from "./compare-tensors.js";
import { isOutlier, type TriedInput } from "./make-inputs.js";

type Outputs = Readonly<Record<string, Tensor>>;
export type Run = (inputs: readonly PackedTensor[][]) => Promise<Outputs>;

/**
 * Result of a trial: the number of inputs run beside different ones, and the first difference, in words; null where
 * there was none.
 */
export interface Trial {
  tried: number;
  difference: string | null;
}

export interface TrialOptions {
  /**
   * Allows differences that also show when an input runs beside itself: float sums vary with the size of a run. Set
   * only where a proof keeps the rows apart.
   */
  allowNoise: boolean;
  /** Time limit of the trial in ms; the trial ends soon after it, with at least two inputs tried. */
  budgetMs: number;
}

/** Outliers magnify the rounding of floats. */
const outlierTolerance = 1e-2;
const noiseMargin = 8;

interface Tried extends TriedInput {
  rows: number;
  outputs: Map<string, Elements>;
}

/**
 * Runs inputs alone and in several companies and compares the outputs. Inputs that cannot run alone are left out.
 * Inputs are joined where their shapes are equal apart from the number of rows.
 */
export async function tryJoining(inputs: readonly TriedInput[], run: Run, options: TrialOptions): Promise<Trial> {
  const deadline = performance.now() + options.budgetMs;
  const tried = await runAlone(inputs, run, deadline);
  const scales = magnitudesByKind(tried);
  const noise = new Map<string, number>();
  const accompanied = new Set<Tried>();
  for (const group of bySignature(tried)) {
    if (options.allowNoise) await measureNoise(group, run, noise, deadline);
    for (const company of companiesOf(group)) {
      const difference = await differenceIn(company, run, scales, noise);
      if (new Set(company).size > 1) for (const input of company) accompanied.add(input);
      if (difference !== null) return { tried: accompanied.size, difference };
      if (performance.now() > deadline) return { tried: accompanied.size, difference: null };
    }
  }
  return { tried: accompanied.size, difference: null };
}

async function runAlone(inputs: readonly TriedInput[], run: Run, deadline: number): Promise<Tried[]> {
  const tried: Tried[] = [];
  for (const input of inputs) {
    if (tried.length >= 2 && performance.now() > deadline) break;
    try {
      const outputs = await run([input.tensors]);
      const elements = Object.entries(outputs).map(([name, tensor]) => [name, elementsOf(tensor, null)] as const);
      tried.push({ ...input, rows: rowsOf(input.tensors), outputs: new Map(elements) });
    } catch {
      // Not valid for the model, such as a number outside an embedding table; the other inputs may be.
    }
  }
  return tried;
}

/** The largest magnitude of any number, by kind of input and output. */
function magnitudesByKind(tried: readonly Tried[]): Map<string, number> {
  const scales = new Map<string, number>();
  for (const { kind, outputs } of tried) {
    for (const [name, elements] of outputs) {
      const key = `${kind}|${name}`;
      scales.set(key, Math.max(scales.get(key) ?? 0, magnitudeOf(elements)));
    }
  }
  return scales;
}

function bySignature(tried: readonly Tried[]): Tried[][] {
  const groups = new Map<string, Tried[]>();
  for (const input of tried) {
    const key = JSON.stringify(input.tensors.map(({ shape }) => shape.slice(1)));
    groups.set(key, [...(groups.get(key) ?? []), input]);
  }
  return [...groups.values()];
}

/** All together, in reverse, each beside the outlier, and the first beside each other one. */
function* companiesOf(group: readonly Tried[]): Generator<readonly Tried[]> {
  const [first, second, ...rest] = group;
  if (first === undefined) return;
  yield [first, second ?? first];
  yield group.length > 1 ? group : [first, first, first];
  yield [...group].reverse();
  const outlier = group.find(isOutlier);
  if (outlier !== undefined) for (const input of group) if (input !== outlier) yield [input, outlier];
  for (const other of rest) yield [other, first];
}

/** The difference between a run of an input beside itself and a run of it alone, by kind of input and output. */
async function measureNoise(
  group: readonly Tried[],
  run: Run,
  noise: Map<string, number>,
  deadline: number,
): Promise<void> {
  for (const input of group) {
    const outputs = await run([input.tensors, input.tensors]).catch(() => null);
    // A failure in company is reported by the comparison later.
    if (outputs === null) continue;
    for (const [name, alone] of input.outputs) {
      const apart = distance(alone, elementsOf(outputs[name] as Tensor, [0, input.rows]));
      const key = `${input.kind}|${name}`;
      if (Number.isFinite(apart)) noise.set(key, Math.max(noise.get(key) ?? 0, apart));
    }
    if (performance.now() > deadline) return;
  }
}

async function differenceIn(
  company: readonly Tried[],
  run: Run,
  scales: ReadonlyMap<string, number>,
  noise: ReadonlyMap<string, number>,
): Promise<string | null> {
  const rows = company.reduce((sum, input) => sum + input.rows, 0);
  let outputs: Outputs;
  try {
    outputs = await run(company.map(({ tensors }) => tensors));
  } catch {
    return `${company.length} inputs that run alone fail together`;
  }
  for (const [name, tensor] of Object.entries(outputs)) {
    if (tensor.dims[0] !== rows) return `output "${name}" has ${tensor.dims[0] ?? "no"} entries for ${rows} rows`;
  }
  let from = 0;
  for (const input of company) {
    const to = from + input.rows;
    for (const [name, alone] of input.outputs) {
      const apart = distance(alone, elementsOf(outputs[name] as Tensor, [from, to]));
      const key = `${input.kind}|${name}`;
      const share = isOutlier(input) ? outlierTolerance : tolerance;
      const allowed = Math.max(share * (scales.get(key) ?? 0), noiseMargin * (noise.get(key) ?? 0));
      if (!(apart <= allowed)) return sentence(name, apart, scales.get(key) ?? 0, company.length);
    }
    from = to;
  }
  return null;
}

function sentence(name: string, apart: number, scale: number, inputs: number): string {
  const far = Number.isFinite(apart)
    ? `is off by ${apart.toPrecision(3)} of ${scale.toPrecision(3)}`
    : "differs in shape or values";
  return `in a run of ${inputs} inputs, output "${name}" ${far} for an input that ran alone before`;
}
