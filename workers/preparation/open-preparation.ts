import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";
import type { Preparation } from "./preparation.js";

/** The preparation of a version whose ONNX file takes `inputs`; `folder` is the version's own folder. */
export async function openPreparation(
  manifest: Manifest,
  inputs: readonly TensorSpec[],
  folder: string,
): Promise<Preparation> {
  // Loaded on demand: an image library costs memory, and most slots do not need it.
  switch (manifest.kind) {
    case "tabular":
      if (manifest.input.derived.length === 0) return asItIs;
      return (await import("./derive-features.js")).deriving(manifest.input);
    case "text":
      return (await import("./prepare-text.js")).textPreparation(manifest.input, inputs, folder);
    case "image":
      return (await import("./prepare-image.js")).imagePreparation(manifest.input, inputs);
    case "tensor":
      return asItIs;
  }
}

const asItIs: Preparation = { prepare: (packed) => packed, padding: null };
