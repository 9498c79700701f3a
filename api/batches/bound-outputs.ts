import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";

/** A chunk is written, kept and read as one, so its outputs must not be many times what its inputs are. */
const outputBytes = 1024 * 1024;
/** A number in JSON, with what separates it from the next. */
const numberBytes = 12;

/** How many rows of a model one chunk may have, so that their outputs stay small; at least 1. */
export const rowsOfOutputs = (manifest: Manifest, outputs: readonly TensorSpec[]): number =>
  Math.max(1, Math.floor(outputBytes / bytesOfRow(manifest, outputs)));

/** What the output of one row takes, as far as the manifest and the ONNX file tell. */
function bytesOfRow({ output }: Manifest, outputs: readonly TensorSpec[]): number {
  if (output.head === "classifier") return 2 + 4 * output.labels.length;
  if ("labels" in output) {
    const labels: readonly string[] = output.labels;
    return labels.reduce((sum, label) => sum + label.length + numberBytes, numberBytes);
  }
  // What is open is not known here; but it is mostly the rows.
  const elements = outputs.map(({ shape }) =>
    shape.slice(1).reduce((size: number, length) => size * (typeof length === "number" && length > 0 ? length : 1), 1),
  );
  return elements.reduce((sum, count) => sum + numberBytes * count, numberBytes);
}
