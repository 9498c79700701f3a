import { dtypes, elementBytes } from "@millrace/shared/tensors/dtype.js";
import { fromFloat16Bits, toFloat16Bits } from "@millrace/shared/tensors/float16.js";
import {
  type PackedTensor,
  packStrings,
  packTensors,
  unpackStrings,
  unpackTensors,
} from "@millrace/shared/tensors/tensor-pack.js";
import { describe, expect, test } from "vitest";

const plain = (tensors: readonly PackedTensor[]) => tensors.map((tensor) => ({ ...tensor, bytes: [...tensor.bytes] }));

describe("a tensor pack", () => {
  const oneOfEach: PackedTensor[] = dtypes.map((dtype, i) => ({
    name: `größe-${dtype}`,
    dtype,
    shape: [2, i % 3, 1],
    bytes:
      dtype === "string"
        ? packStrings(new Array(2 * (i % 3)).fill("é"))
        : Uint8Array.from({ length: 2 * (i % 3) * elementBytes[dtype] }, (_, b) => b * 37),
  }));

  test("returns every tensor of every data type unchanged", () => {
    expect(plain(unpackTensors(packTensors(oneOfEach)))).toEqual(plain(oneOfEach));
    expect(unpackTensors(packTensors([]))).toEqual([]);
    const scalar: PackedTensor = { name: "a", dtype: "float64", shape: [], bytes: new Uint8Array(8).fill(1) };
    expect(plain(unpackTensors(packTensors([scalar])))).toEqual(plain([scalar]));
  });

  test("that is truncated anywhere, or too long, is refused with a RangeError", () => {
    const whole = packTensors(oneOfEach);
    for (let length = 0; length < whole.length; length++) {
      expect(() => unpackTensors(whole.subarray(0, length)), `cut to ${length} bytes`).toThrow(RangeError);
    }
    expect(() => unpackTensors(Buffer.concat([whole, Buffer.from([0])]))).toThrow(RangeError);
  });

  test("with a shape that does not match its bytes, or an unknown data type, is refused with a RangeError", () => {
    const tensor: PackedTensor = { name: "x", dtype: "float32", shape: [2], bytes: new Uint8Array(8) };
    const shape = packTensors([tensor]);
    shape.writeUInt32LE(3, 5);
    expect(() => unpackTensors(shape)).toThrow(RangeError);
    const dtype = packTensors([tensor]);
    dtype.writeUInt8(dtypes.length, 3);
    expect(() => unpackTensors(dtype)).toThrow(RangeError);
  });

  test("keeps strings separate, also empty and non-ASCII ones, and refuses damaged ones", () => {
    const values = ["", "a", "日本", "a".repeat(1000), ""];
    const packed = packStrings(values);
    expect(unpackStrings(packed)).toEqual(values);
    expect(() => unpackStrings(packStrings(["abc"]).subarray(0, 6))).toThrow(RangeError);
  });
});

describe("float16", () => {
  test("each of the 65,536 bit patterns survives conversion to a number and back", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < 65_536; bits++) {
      const value = fromFloat16Bits(bits);
      const back = toFloat16Bits(value);
      const isNan = (bits & 0x7c00) === 0x7c00 && (bits & 0x3ff) !== 0;
      if (isNan ? !Number.isNaN(value) || !Number.isNaN(fromFloat16Bits(back)) : back !== bits) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  test("a number between two of them is rounded to the nearer, and halfway to the even one", () => {
    const wrong: number[] = [];
    for (let bits = 0; bits < 0x7bff; bits++) {
      const low = fromFloat16Bits(bits);
      const high = fromFloat16Bits(bits + 1);
      const middle = (low + high) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const quarter = (high - low) / 4;
      const right =
        toFloat16Bits(middle) === even &&
        toFloat16Bits(middle - quarter) === bits &&
        toFloat16Bits(middle + quarter) === bits + 1 &&
        toFloat16Bits(-middle) === (even | 0x8000);
      if (!right) wrong.push(bits);
    }
    expect(wrong).toEqual([]);
  });

  test("a number beyond the largest becomes infinite", () => {
    expect(toFloat16Bits(65_519)).toBe(0x7bff);
    expect(toFloat16Bits(65_520)).toBe(0x7c00);
    expect(toFloat16Bits(-1e30)).toBe(0xfc00);
  });
});
