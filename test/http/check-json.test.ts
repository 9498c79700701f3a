import { checkJson } from "@millrace/api/http/check-json.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

const limits = { maxBodyKeys: 10_000 };
const isRefused = (text: string): boolean => {
  try {
    checkJson(Buffer.from(text), limits);
    return false;
  } catch {
    return true;
  }
};

describe("the check of JSON before it is parsed", () => {
  test("JSON without duplicate keys passes, whatever its values", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 8, stringUnit: "binary" }), (value) => {
        expect(isRefused(JSON.stringify(value))).toBe(false);
        expect(isRefused(JSON.stringify(value, null, 2))).toBe(false);
      }),
      { seed: 7 },
    );
  });

  test("a duplicate key is found at any depth and in any spelling", () => {
    const spelled = (key: string, escaped: boolean) =>
      escaped
        ? `"${[...key].map((c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`).join("")}"`
        : JSON.stringify(key);
    const key = fc.stringMatching(/^[a-z"\\ {}[\]:,]{0,300}$/);
    fc.assert(
      fc.property(
        fc.uniqueArray(key, { minLength: 1, maxLength: 40 }),
        fc.nat(),
        fc.boolean(),
        fc.nat({ max: 60 }),
        fc.jsonValue({ maxDepth: 2 }),
        (keys, which, escaped, depth, value) => {
          const members = keys.map((name) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
          const again = `${spelled(keys[which % keys.length] as string, escaped)} : 1`;
          const wrap = (inner: string) => `${'[{"a":'.repeat(depth >> 1)}${inner}${"}]".repeat(depth >> 1)}`;
          expect(isRefused(wrap(`{${members.join(",")}}`))).toBe(false);
          expect(isRefused(wrap(`{${[...members, again].join(",")}}`))).toBe(true);
        },
      ),
      { seed: 8 },
    );
  });

  test("the same key in different objects is not a duplicate", () => {
    const rows = Array.from({ length: 3000 }, (_, i) => `{"a":${i},"b":{"a":[{"a":1},{"a":2}]}}`);
    expect(isRefused(`[${rows.slice(0, 1500).join(",")}]`)).toBe(false);
  });
});
