import type { TensorSpec } from "@millrace/shared/announcement.js";
import type { Manifest } from "@millrace/shared/manifest.js";
import { unpackTensors } from "@millrace/shared/tensor-pack.js";
import { makeInputs, type TriedInput } from "../joining/make-inputs.js";
import { InputRefusedError, type Preparation } from "./preparation.js";

const mostSamples = 4;

/** What a model is tried with at load, as its ONNX file takes it: its samples, and made inputs of varied magnitudes. */
export async function inputsToTry(
  manifest: Manifest,
  specs: readonly TensorSpec[],
  samples: readonly Buffer[],
  preparation: Preparation,
): Promise<TriedInput[]> {
  const { made, prepared } = makeInputs(manifest, specs);
  const given = samples.slice(0, mostSamples).map((pack) => ({ kind: "sample", tensors: unpackTensors(pack) }));
  const tried: TriedInput[] = [];
  for (const input of [...given, ...(prepared ? [] : made)]) {
    try {
      tried.push({ ...input, tensors: await preparation.prepare(input.tensors) });
    } catch (fault) {
      // A made input may be none for this model.
      if (!(fault instanceof InputRefusedError) || input.kind === "sample") throw fault;
    }
  }
  return prepared ? [...tried, ...made] : tried;
}
