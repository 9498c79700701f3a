import { delayBeforeTry, retryAfterMs } from "@millrace/workers/webhooks/delivery-delay.js";
import { expect, test } from "vitest";

const now = Date.parse("2026-01-02T03:04:05.000Z");
const day = 86_400_000;

test.each([
  ["no header", undefined, null],
  ["seconds", "3", 3000],
  ["zero seconds", "0", 0],
  ["a date", "Fri, 02 Jan 2026 03:04:09 GMT", 4000],
  ["a date of the past", "Fri, 02 Jan 2026 03:04:01 GMT", 0],
  ["seconds of more than a day", "86401", day],
  ["a date of next year", "Fri, 01 Jan 2027 00:00:00 GMT", day],
  ["words", "soon", null],
  ["an empty value", "", null],
])("Retry-After with %s", (_what, header, ms) => {
  expect(retryAfterMs(header, now)).toBe(ms);
});

test.each([
  ["the schedule's, at least", 1, null, 0, 900],
  ["the schedule's, at most", 1, null, 1, 1100],
  ["the second of the schedule", 2, null, 0.5, 5000],
  ["none after its end", 3, null, 0.5, 0],
  ["the receiver's if that is longer", 1, 3000, 1, 3000],
  ["the schedule's if the receiver's is shorter", 2, 3000, 0.5, 5000],
])("the delay before a try is %s", (_what, tries, askedMs, random, ms) => {
  expect(delayBeforeTry([1000, 5000], tries, askedMs, random)).toBe(ms);
});
