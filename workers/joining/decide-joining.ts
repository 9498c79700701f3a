import type { Joining, TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { proveRows, type RowProof, type SharedLength } from "../graph/prove-rows.js";
import type { OnnxModel } from "../graph/read-onnx.js";
import { lengthNamed, type Size, sameSize } from "../graph/sizes.js";
import type { TriedInput } from "./make-inputs.js";
import { type Run, tryJoining } from "./try-joining.js";

/** Mode in which a version's inputs share runs. */
export interface JoiningDecision {
  joining: Joining;
  /** True where a run contradicts the proof from the graph. */
  proofFault: boolean;
  /**
   * By output, the dimensions after the first whose length is the number of tokens, so that padding can be cut off
   * again; null unless they are known for all outputs.
   */
  tokenAxes: ReadonlyMap<string, readonly number[]> | null;
}

/** In ms. A proven graph needs only a short trial; a declared one rests on the trial alone. */
const provenBudgetMs = 50;
const declaredBudgetMs = 10_000;

/**
 * Decides whether requests share runs, and gives the reason. Throws where the author declares it and a run shows
 * another answer, or no inputs can be run to check it.
 *
 * @param models ONNX files by their paths in the version's folder
 * @param inputs as taken by the ONNX file, of varied magnitudes, samples among them
 */
export async function decideJoining(options: {
  manifest: Manifest;
  models: ReadonlyMap<string, OnnxModel>;
  specs: readonly TensorSpec[];
  inputs: readonly TriedInput[];
  /** False where a made input has killed the process before; `inputs` then holds samples only. */
  triesMade: boolean;
  run: Run;
}): Promise<JoiningDecision> {
  const { inputs, manifest, models, run, specs, triesMade } = options;
  const { join, max_batch_rows: maxBatchRows } = manifest.batching;
  if (join === "never") return off("batching.join in model.json is never");
  if (maxBatchRows === 1) return off("batching.max_batch_rows is 1");
  const alone = specs.find(({ shape }) => typeof shape[0] !== "string");
  const blocked = alone === undefined ? null : `input "${alone.name}" has no free first dimension`;
  if (join === "always") {
    if (blocked !== null) throw new Error(`model.json /batching/join: cannot be always: ${blocked}`);
    if (!triesMade) throw new Error(`model.json /batching/join: always cannot be checked: ${killed}`);
    const { difference, tried } = await tryJoining(inputs, run, { allowNoise: false, budgetMs: declaredBudgetMs });
    if (difference !== null) throw new Error(`model.json /batching/join: cannot be always: ${difference}`);
    if (tried === 0) {
      throw new Error(
        "model.json /batching/join: always cannot be checked, because no two of the made inputs " +
          "run together: " +
          "add samples",
      );
    }
    const reason = `declared in model.json; ${tried} inputs had the same outputs alone and in company`;
    return { joining: { mode: "declared", reason }, proofFault: false, tokenAxes: null };
  }
  if (blocked !== null) return off(blocked);
  const proof = proveAll(manifest, models);
  if (!proof.proven) return off(proof.reason);
  const { difference, tried } = await tryJoining(inputs, run, { allowNoise: true, budgetMs: provenBudgetMs });
  if (difference !== null) {
    return { ...off(`${difference}, although the graph seems to keep rows apart`), proofFault: true };
  }
  const untried = triesMade ? "the model runs no two of the made inputs together" : `${killed}`;
  const reason = `the graph keeps rows apart${tried > 0 ? "" : `; not tried, because ${untried}`}`;
  return { joining: { mode: "proven", reason }, proofFault: false, tokenAxes: tokenAxesOf(proof.lengths) };
}

const killed = "a made input killed the process";

const off = (reason: string): JoiningDecision => ({
  joining: { mode: "off", reason },
  proofFault: false,
  tokenAxes: null,
});

const tokens = "tokens";

/** An ensemble keeps rows apart where each of its members does. */
function proveAll(manifest: Manifest, models: ReadonlyMap<string, OnnxModel>): RowProof {
  if (manifest.output.head !== "ensemble") {
    const model = models.get("model.onnx") as OnnxModel;
    return proveRows(model, manifest.kind === "text" ? sharedTokens(manifest.input.tokenizer) : null);
  }
  for (const member of manifest.output.members) {
    if (!("file" in member)) continue;
    const model = models.get(member.file);
    if (model === undefined) return { proven: false, reason: `member "${member.name}" has no ONNX file` };
    const proof = proveRows(model);
    if (!proof.proven) return { proven: false, reason: `member "${member.name}": ${proof.reason}` };
  }
  return { proven: true, lengths: new Map() };
}

/** All tensors of a tokenizer have the same length. */
function sharedTokens(tokenizer: object | undefined): SharedLength | null {
  const inputs = Object.values(tokenizer ?? {}).filter((name): name is string => typeof name === "string");
  return tokenizer === undefined ? null : { inputs, name: tokens };
}

function tokenAxesOf(lengths: ReadonlyMap<string, readonly Size[]>): Map<string, readonly number[]> | null {
  const length = lengthNamed(tokens);
  const axes = new Map<string, readonly number[]>();
  for (const [name, dims] of lengths) {
    const own = dims.flatMap((size, d) => (sameSize(size, length) ? [d] : []));
    // A free length other than that of the tokens may still depend on it.
    if (dims.some((size, d) => d > 0 && size.symbols.length > 0 && !own.includes(d))) return null;
    axes.set(name, own);
  }
  return axes;
}
