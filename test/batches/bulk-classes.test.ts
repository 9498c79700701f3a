import type { Manifest } from "@millrace/shared/models/manifest.js";
import { manifestSchema } from "@millrace/shared/models/manifest.js";
import { classIn, decodeChunk } from "@millrace/shared/predictions/bulk-chunk.js";
import { headOf } from "@millrace/workers/heads/heads.js";
import { tableWriter } from "@millrace/workers/slot/table-writer.js";
import { Tensor } from "onnxruntime-node";
import { describe, expect, test } from "vitest";

const classifier = (width: number): Manifest =>
  manifestSchema.parse({
    kind: "tabular",
    input: { tensor: "x", features: ["a"] },
    output: { head: "classifier", probabilities: "y", labels: Array.from({ length: width }, (_, c) => `l${c}`) },
  });

/** One row of equal probabilities, except a slightly larger one at `best`. */
function rowWith(width: number, best: number, type: "float32" | "float64") {
  const values = (type === "float32" ? new Float32Array(width) : new Float64Array(width)).fill(1 / (width + 1));
  values[best] = 2 / (width + 1);
  return { y: new Tensor(type, values as never, [1, width]) };
}

describe("the best class of a row", () => {
  test.each([
    [2, 1],
    [65_535, 65_534],
    [65_536, 65_535],
    [65_537, 65_536],
    [100_000, 99_999],
    [100_000, 34_464],
    [100_000, 0],
  ])("of %i classes is %i, in a batch and as a single prediction", (width, best) => {
    const manifest = classifier(width);
    const head = headOf(manifest);
    for (const type of ["float32", "float64"] as const) {
      const outputs = rowWith(width, best, type);
      const writer = tableWriter(manifest, head);
      writer.add(outputs, 1);
      const { body } = decodeChunk(writer.finish());
      expect(classIn(Buffer.from(body), 0, width)).toBe(best);
      const single = head.read(outputs, null);
      expect(typeof single === "string" ? single : JSON.parse(single.json).label).toBe(`l${best}`);
    }
  });
});
