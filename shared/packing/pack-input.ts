import type { Announcement } from "../models/announcement.js";
import { imagePacker } from "./pack-image.js";
import { tabularPacker } from "./pack-tabular.js";
import { tensorPacker } from "./pack-tensors.js";
import { textPacker } from "./pack-text.js";
import type { Packer } from "./packer.js";

/**
 * The packer of a version, by its manifest's kind. `takesPairs`: false for a version that an older release serves,
 * which would take a pair of texts for two texts.
 */
export function packerOf(
  { inputs, manifest }: Pick<Announcement, "manifest" | "inputs">,
  { takesPairs = true } = {},
): Packer {
  switch (manifest.kind) {
    case "tabular":
      return tabularPacker(manifest);
    case "text":
      return textPacker(manifest.input, takesPairs);
    case "image":
      return imagePacker(manifest.input);
    case "tensor":
      return tensorPacker(inputs);
  }
}
