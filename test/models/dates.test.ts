import { manifestSchema, type TabularManifest } from "@millrace/shared/models/manifest.js";
import { parseDate } from "@millrace/shared/models/parse-date.js";
import { tabularPacker } from "@millrace/shared/packing/pack-tabular.js";
import { describe, expect, test } from "vitest";

const two = (value: number, length = 2) => String(value).padStart(length, "0");

describe("a date", () => {
  test("is accepted for each existing day and refused for each other one, over 500 years", () => {
    for (let year = 1800; year < 2300; year++) {
      for (let month = 0; month <= 13; month++) {
        for (let day = 0; day <= 32; day++) {
          const at = new Date(Date.UTC(year, month - 1, day));
          const exists = at.getUTCMonth() === month - 1 && at.getUTCDate() === day && at.getUTCFullYear() === year;
          const text = `${two(year, 4)}-${two(month)}-${two(day)}`;
          const parsed = parseDate(text);
          // Six million assertions would take minutes.
          if (!Object.is(parsed, exists ? at.getTime() : Number.NaN)) expect.fail(`${text} gives ${parsed}`);
        }
      }
    }
  });

  test.each([
    ["2026-01-31T09:30:00Z", Date.UTC(2026, 0, 31, 9, 30)],
    ["2026-01-31t09:30:00z", Date.UTC(2026, 0, 31, 9, 30)],
    ["2026-01-31 09:30:00+01:00", Date.UTC(2026, 0, 31, 8, 30)],
    ["2026-01-31T23:59:59.999999999-23:59", Date.UTC(2026, 1, 1, 23, 58, 59, 999)],
    ["0001-01-01 00:00:00Z", -62_135_596_800_000],
    ["2000-02-29", Date.UTC(2000, 1, 29)],
  ])("%s is accepted", (text, ms) => expect(parseDate(text)).toBe(ms));

  const refused = [
    "2026-02-30",
    "2025-02-29",
    "1900-02-29",
    "2026-04-31T00:00:00Z",
    "2026-13-01",
    "2026-00-10",
    "2026-01-00",
    "2026-01-01T24:00:00Z",
    "2026-01-01T24:00:01Z",
    "2026-01-01T25:00:00Z",
    "2026-01-01T00:60:00Z",
    "2026-01-01T00:00:61Z",
    "2026-01-01T00:00:00+25:00",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00-01:60",
    "2026-01-01T00:00:00",
    "2026-01-01T00:00Z",
    "2026-1-1",
    "Jan 5 2020",
    " 2026-01-01",
    "",
  ];
  test.each([...refused, "2016-12-31T23:59:60Z"])("%j is refused", (text) => expect(parseDate(text)).toBeNaN());

  const manifest = (fallback?: string) => ({
    kind: "tabular",
    input: {
      tensor: "x",
      features: [{ name: "d", type: "date", ...(fallback !== undefined && { default: fallback }) }],
    },
  });

  test("is checked equally in a row and as the default of a feature", () => {
    const pack = tabularPacker(manifestSchema.parse(manifest("2024-02-29")) as TabularManifest);
    for (const text of refused) {
      expect(pack([text]), text).toHaveProperty("complaints");
      expect(pack({ d: text }), text).toHaveProperty("complaints");
      expect(manifestSchema.safeParse(manifest(text)).success, text).toBe(false);
    }
    expect(pack({})).toHaveProperty("pack");
  });

  test("with a leap second is refused with the reason", () => {
    const pack = tabularPacker(manifestSchema.parse(manifest()) as TabularManifest);
    expect(pack(["2016-12-31T23:59:60Z"])).toEqual({
      complaints: [{ detail: expect.stringContaining("leap seconds are not taken"), pointer: "/0" }],
    });
  });
});
