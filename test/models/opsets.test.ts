import { readFileSync } from "node:fs";
import { join } from "node:path";
import { onnxSchema } from "@millrace/workers/graph/onnx-schema.js";
import { InferenceSession } from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { root } from "../support/run/tools.js";

const file = readFileSync(join(root, "test/fixtures/models/echo-float32/1/model.onnx"));
const mlDomain = "ai.onnx.ml";

interface Versions {
  ir?: number;
  onnx?: number;
  ml?: number;
}

/** Whether ONNX Runtime loads the fixture as a file of these versions. */
async function loads({ ir = 8, ml = 3, onnx = 17 }: Versions): Promise<boolean> {
  const model = onnxSchema.model.decode(file) as unknown as { ir_version: number; opset_import: object[] };
  model.ir_version = ir;
  model.opset_import = [
    { domain: "", version: onnx },
    { domain: mlDomain, version: ml },
  ];
  const bytes = onnxSchema.model.encode(onnxSchema.model.fromObject(model)).finish();
  return InferenceSession.create(bytes, { logSeverityLevel: 4 }).then(
    (session) => session.release().then(() => true),
    () => false,
  );
}

/** The highest version of these that loads; those below it must, those above must not. */
async function highest(most: number, versions: (version: number) => Versions): Promise<number> {
  const all = await Promise.all(Array.from({ length: most }, (_, i) => loads(versions(i + 1))));
  expect(all).toEqual(all.toSorted((a, b) => Number(b) - Number(a)));
  return all.filter(Boolean).length;
}

describe("ONNX files", () => {
  test("load up to the versions that docs/support.md names", async () => {
    const ir = await highest(20, (version) => ({ ir: version }));
    const onnx = await highest(35, (version) => ({ onnx: version }));
    const ml = await highest(9, (version) => ({ ml: version }));
    expect(readFileSync(join(root, "docs/support.md"), "utf8")).toContain(
      `IR version up to ${ir}; opsets 1 to ${onnx} of \`ai.onnx\`, 1 to ${ml} of \`ai.onnx.ml\``,
    );
  });
});
