import type { Announcement } from "./announcement.js";
import { tabularPacker } from "./pack-tabular.js";
import { tensorPacker } from "./pack-tensors.js";
import type { Packer } from "./packer.js";

/** The packer of a model version, by its manifest's kind. */
export function packerOf(announced: Pick<Announcement, "manifest" | "inputs">): Packer {
  const { manifest, inputs } = announced;
  return manifest.kind === "tabular" ? tabularPacker(manifest) : tensorPacker(inputs);
}
