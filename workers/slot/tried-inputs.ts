import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { makeInputs, type TriedInput } from "../joining/make-inputs.js";
import { InputRefusedError, type Preparation } from "../preparation/preparation.js";
import type { LoadOrder } from "../runs/load-request.js";

const mostSamples = 4;
const sampleKind = "sample";

export const isSample = ({ kind }: TriedInput): boolean => kind === sampleKind;

/**
 * The inputs for the checks at load, prepared for the ONNX file: the samples, and made inputs of varied magnitudes,
 * unless one of those has killed the process before.
 */
export async function inputsToTry(
  { manifest, triesMade }: LoadOrder,
  specs: readonly TensorSpec[],
  samples: readonly Buffer[],
  preparation: Preparation,
): Promise<TriedInput[]> {
  const tried: TriedInput[] = [];
  for (const pack of samples.slice(0, mostSamples)) {
    tried.push({ kind: sampleKind, tensors: await preparation.prepare(unpackTensors(pack)) });
  }
  if (!triesMade) return tried;
  const { made, prepared } = makeInputs(manifest, specs);
  if (prepared) return [...tried, ...made];
  for (const input of made) {
    try {
      tried.push({ ...input, tensors: await preparation.prepare(input.tensors) });
    } catch (fault) {
      // A made input may be invalid for this model, such as a text without any token.
      if (!(fault instanceof InputRefusedError)) throw fault;
    }
  }
  return tried;
}
