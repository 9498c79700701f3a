import { readInferRequest } from "@millrace/api/tensors/infer-request.js";
import { inputSpecs, packInferInputs } from "@millrace/api/tensors/input-tensors.js";
import type { Announcement } from "@millrace/shared/models/announcement.js";
import { manifestSchema, type TabularManifest } from "@millrace/shared/models/manifest.js";
import { tabularPacker } from "@millrace/shared/packing/pack-tabular.js";
import { tensorPacker } from "@millrace/shared/packing/pack-tensors.js";
import { type Dtype, dtypes, elementBytes } from "@millrace/shared/tensors/dtype.js";
import { tensorsText } from "@millrace/shared/tensors/packed-json.js";
import { type PackedTensor, packStrings, unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { describe, expect, test } from "vitest";
import { type Random, random } from "../support/random.js";

/** Random elements of any value, with all bit patterns. */
function bytesOf(r: Random, dtype: Dtype, count: number): Uint8Array {
  if (dtype === "string") {
    const text = () =>
      Array.from({ length: r.below(4) }, () => r.pick(["a", "é", "😀", '"', "\\", "\n", "\u2028"])).join("");
    return packStrings(Array.from({ length: count }, text));
  }
  const bytes = Uint8Array.from({ length: count * elementBytes[dtype] }, () => r.pick([0, 255, r.below(256)]));
  return dtype === "bool" ? bytes.map((byte) => byte & 1) : bytes;
}

const special: Partial<Record<Dtype, Uint8Array>> = {
  float32: new Uint8Array(Float32Array.of(Number.NaN, Infinity, -Infinity, -0, 1e-45, 3.4028234663852886e38).buffer),
  float64: new Uint8Array(Float64Array.of(Number.NaN, Infinity, -Infinity, -0, 5e-324, 1.7976931348623157e308).buffer),
  float16: new Uint8Array(Uint16Array.of(0x7e00, 0x7c00, 0xfc00, 0x8000, 0x0001, 0x7bff).buffer),
};

test.each(dtypes)("JSON of a %s output is accepted as input and gives the same JSON again", (dtype) => {
  const r = random(41);
  const check = (tensor: PackedTensor) => {
    const text = [...tensorsText([tensor])].join("");
    const shape = tensor.shape.map((_, d) => (d === 0 ? "N" : (tensor.shape[d] as number)));
    const packed = tensorPacker([{ name: tensor.name, dtype, shape }])(JSON.parse(text));
    expect(packed, text).toHaveProperty("pack");
    const again = unpackTensors((packed as { pack: Buffer }).pack);
    expect([...tensorsText(again)].join("")).toBe(text);
    expect(again[0]?.shape).toEqual(tensor.shape);
    // Only the bits of NaN cannot be expressed in JSON.
    if (!text.includes("NaN")) expect(Buffer.from(again[0]?.bytes ?? [])).toEqual(Buffer.from(tensor.bytes));
  };
  for (let round = 0; round < 300; round++) {
    const shape = [1 + r.below(3), 1 + r.below(4)];
    const count = (shape[0] as number) * (shape[1] as number);
    check({ name: r.pick(["x", "__proto__"]), dtype, shape, bytes: bytesOf(r, dtype, count) });
  }
  const bytes = special[dtype];
  if (bytes !== undefined) check({ name: "x", dtype, shape: [6], bytes });
});

describe("a tensor's name", () => {
  const names = ["__proto__", "constructor", "toString", "hasOwnProperty"];

  test("may be a name in Object.prototype", () => {
    const pack = tensorPacker(names.map((name) => ({ name, dtype: "int64", shape: ["N"] })));
    const packed = pack(JSON.parse(`{${names.map((name, i) => `${JSON.stringify(name)}:[${i}]`)}}`));
    expect(packed).toMatchObject({ rows: 1 });
    const tensors = unpackTensors((packed as { pack: Buffer }).pack);
    expect(tensors.map(({ bytes, name }) => [name, bytes[0]])).toEqual(names.map((name, i) => [name, i]));
    const { complaints } = pack(JSON.parse("{}")) as { complaints: { detail: string }[] };
    expect(complaints.map(({ detail }) => detail)).toEqual(names.map((name) => `tensor "${name}" is missing`));
  });

  test("of a feature may be one too", () => {
    const manifest = manifestSchema.parse({
      kind: "tabular",
      input: { tensor: "x", features: names },
    }) as TabularManifest;
    const pack = tabularPacker(manifest);
    const packed = pack(JSON.parse('{"toString":3,"constructor":2,"__proto__":1,"hasOwnProperty":4}'));
    const [tensor] = unpackTensors((packed as { pack: Buffer }).pack);
    expect([...new Float32Array(Uint8Array.from(tensor?.bytes ?? []).buffer)]).toEqual([1, 2, 3, 4]);
    expect(pack({})).toMatchObject({ complaints: names.map((name) => ({ pointer: `/${name}` })) });
  });
});

describe("a declared dimension", () => {
  const announce = (...shapes: (number | string)[][]): Announcement => ({
    v: 1,
    model: "m",
    version: "1",
    digest: "",
    manifest: manifestSchema.parse({ kind: "tensor" }),
    inputs: shapes.map((shape, i) => ({ name: `x${i}`, dtype: "float32", shape })),
    outputs: [],
    joinable: false,
  });
  const infer = (announcement: Announcement, ...lengths: number[][]) => {
    const inputs = lengths.map((shape, i) => {
      const data = new Array(shape.reduce((size, length) => size * length, 1)).fill(1);
      return { name: `x${i}`, datatype: "FP32", shape, data };
    });
    const limits = { maxBodyBytes: 1_000_000, maxBodyKeys: 1000 };
    return packInferInputs(readInferRequest(Buffer.from(JSON.stringify({ inputs })), null, limits), announcement);
  };
  const nested = ([rows = 1, width = 1]: number[]) => Array.from({ length: rows }, () => new Array(width).fill(1));

  test.each(["", "?", "-1", -1])("%j is free: two of them may differ, on both APIs", (free) => {
    const announcement = announce(["N", free], ["N", free]);
    const packed = tensorPacker(announcement.inputs)({ x0: nested([2, 3]), x1: nested([2, 5]) });
    expect(packed).toMatchObject({ rows: 2 });
    const shapes = (pack: Buffer) => unpackTensors(pack).map(({ shape }) => shape);
    expect(shapes((packed as { pack: Buffer }).pack)).toEqual([
      [2, 3],
      [2, 5],
    ]);
    expect(shapes(infer(announcement, [2, 3], [2, 5]))).toEqual([
      [2, 3],
      [2, 5],
    ]);
    expect(() => infer(announcement, [2, 3], [1, 5])).toThrow("must have length 2 in dimension 0");
  });

  test.each(["N", "batch?", "-1x", "unk__1"])("%j is the same length wherever it occurs, on both APIs", (symbol) => {
    const announcement = announce([symbol, 2], [symbol, 2]);
    expect(tensorPacker(announcement.inputs)({ x0: nested([2, 2]), x1: nested([3, 2]) })).toHaveProperty("complaints");
    expect(() => infer(announcement, [2, 2], [3, 2])).toThrow("must have length 2 in dimension 0");
    expect(() => infer(announcement, [2, 2], [2, 2])).not.toThrow();
  });

  test("of a tabular model is reported for its input, without derived columns", () => {
    const derived = [{ name: "s", op: "sum", of: ["a", "b"] }];
    const manifest = manifestSchema.parse({
      kind: "tabular",
      input: { tensor: "x0", features: ["a", "b"], derived },
    });
    const announcement = { ...announce(["N", 3]), manifest };
    expect(inputSpecs(announcement).map(({ shape }) => shape)).toEqual([["N", 2]]);
    expect(() => infer(announcement, [1, 2])).not.toThrow();
    expect(() => infer(announcement, [1, 3])).toThrow("must have length 2 in dimension 1");
  });
});
