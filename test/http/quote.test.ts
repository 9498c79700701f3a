import { quote } from "@millrace/api/http/quote.js";
import { expect, test } from "vitest";

test("a caller's text is shown in quotes, bounded in length and without characters that act", () => {
  expect(quote("intent-banking77")).toBe('"intent-banking77"');
  expect(quote("a\n\u001b[2J\u202e\u2028\ud800b")).toBe('"a\ufffd\ufffd[2J\ufffd\ufffd\ufffdb"');
  expect(quote("x".repeat(64))).toBe(`"${"x".repeat(64)}"`);
  expect(quote("x".repeat(10_000))).toBe(`"${"x".repeat(64)}…"`);
  expect(quote("\u{1f600}".repeat(10_000))).toBe(`"${"\u{1f600}".repeat(64)}…"`);
});
