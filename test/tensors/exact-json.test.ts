import { parseExactJson } from "@millrace/api/tensors/exact-json.js";
import { describe, expect, test } from "vitest";

describe("JSON parsed without losing digits", () => {
  test.each([
    ["[9007199254740993,-9223372036854775808]", ["9007199254740993", "-9223372036854775808"]],
    [
      "[9007199254740991,1000000000000000,12345678901234567.5,1e300]",
      [9007199254740991, 1e15, 12345678901234568, 1e300],
    ],
    ["[0.1234567890123456789,-0.0]", [0.12345678901234568, -0]],
    ["[NaN,Infinity,-Infinity]", ["NaN", "Infinity", "-Infinity"]],
    [
      '{"NaN":"a 9007199254740993, NaN","b":[18446744073709551615]}',
      { NaN: "a 9007199254740993, NaN", b: ["18446744073709551615"] },
    ],
    ['["\\"","\\\\",9007199254740993,"\\\\\\" NaN",NaN]', ['"', "\\", "9007199254740993", '\\" NaN', "NaN"]],
  ])("%s", (text, value) => {
    expect(parseExactJson(text)).toEqual(value);
  });

  test.each([
    "",
    "{",
    "[9007199254740993",
    '["NaN',
    "[NaNs]",
    "[9007199254740993 1]",
    "Infinit",
    '{"a":\\"9007199254740993}',
  ])("%s is refused", (text) => {
    expect(() => parseExactJson(text)).toThrow(SyntaxError);
  });

  test("a long text is parsed quickly", () => {
    const text = `["${"\\\\".repeat(500_000)}",${"9007199254740993,".repeat(100_000)}"${"x".repeat(1_000_000)}"]`;
    expect((parseExactJson(text) as unknown[]).length).toBe(100_002);
  });
});
