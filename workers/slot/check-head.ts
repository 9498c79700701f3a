import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import { rowsOf } from "@millrace/shared/packing/pack-tensors.js";
import type { Head } from "../heads/head.js";
import type { TriedInput } from "../joining/make-inputs.js";
import type { Run } from "../joining/try-joining.js";
import { isSample } from "./tried-inputs.js";

/** Number of made inputs that must have run: beside samples, and without any. */
const mostMade = { besideSamples: 1, alone: 3 };

/**
 * Runs samples and made inputs of one row, one by one, and checks the outputs against the head. Throws where the head
 * can never read them. Resolves to the output specs, with shapes missing in the file filled in from the runs.
 */
export async function checkHead(options: {
  head: Head;
  manifest: Manifest;
  declared: readonly TensorSpec[];
  inputs: readonly TriedInput[];
  run: Run;
}): Promise<TensorSpec[]> {
  const { head, inputs, manifest, run } = options;
  let outputs = [...options.declared];
  const enough = inputs.some(isSample) ? mostMade.besideSamples : mostMade.alone;
  let made = 0;
  for (const input of inputs) {
    if (!isSample(input) && made === enough) continue;
    const { tensors } = input;
    if (rowsOf(tensors) !== 1) continue;
    let ran: Awaited<ReturnType<Run>>;
    try {
      ran = await run([tensors]);
    } catch (fault) {
      if (isSample(input)) throw new Error(`a sample fails to run: ${(fault as Error).message.split("\n")[0]}`);
      // Not every made input is valid for this model.
      continue;
    }
    if (!isSample(input)) made += 1;
    const fault = head.fault(ran);
    if (fault !== null)
      throw new Error(`model.json /output: the head "${manifest.output.head}" does not fit: ${fault}`);
    outputs = outputs.map((spec) => {
      const rank = ran[spec.name]?.dims.length ?? 0;
      return spec.shape.length === rank ? spec : { ...spec, shape: new Array<string>(rank).fill("") };
    });
  }
  return outputs;
}
