import { ServiceError } from "@millrace/shared/errors.js";
import type { Feature } from "@millrace/shared/pack-tabular.js";
import type { TableReader } from "./read-rows.js";
import { keepScanned, scanNumber, scanNumbers } from "./scan-numbers.js";
import type { OnLine } from "./split-lines.js";

/**
 * Reads lines of CSV (RFC 4180) into a table: first the header, whose names are the features in any order, then a row
 * each. Throws `invalid_request` for a header that lacks a feature without a default, has one twice or one that is unknown.
 */
export function csvLines(reader: TableReader): OnLine {
  let places: Int32Array | null = null;
  let inOrder = false;
  const { bounds, builder, features } = reader;
  return (bytes, from, to) => {
    if (places === null) {
      places = placesOf(splitFields(bytes.toString("utf8", from, to)) ?? [], features);
      inOrder = places.every((place, i) => place === i);
      return;
    }
    // What the columns lack has its default, which only the packer knows.
    if (places.length < features.length) return readSlowly(reader, places, bytes.toString("utf8", from, to));
    const { row, rowAt } = builder;
    if (inOrder && scanNumbers(bytes, from, to, row, rowAt, places.length, bounds) === to) {
      builder.addRow();
      return;
    }
    let p = from;
    let i = 0;
    for (; i < places.length; i++) {
      if (i > 0 && bytes[p++] !== comma) break;
      const place = places[i] as number;
      p = scanNumber(bytes, p, to);
      if (p < 0 || !keepScanned(row, rowAt + place, bounds, place)) break;
      while (bytes[p] === space && p < to) p += 1;
    }
    if (i === places.length && p === to) return builder.addRow();
    readSlowly(reader, places, bytes.toString("utf8", from, to));
  };
}

const comma = 0x2c;
const space = 0x20;
const numberPattern = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

function readSlowly({ builder, features, readValue }: TableReader, places: Int32Array, line: string): void {
  const fields = splitFields(line);
  if (fields === null) {
    builder.addFault("malformed_csv", "a quoted field does not end as it must");
    return;
  }
  if (fields.length !== places.length) {
    builder.addFault("malformed_csv", `the header has ${places.length} fields, the line ${fields.length}`);
    return;
  }
  const input: [string, unknown][] = [];
  fields.forEach((field, i) => {
    const text = field.trim();
    const { name, type } = features[places[i] as number] as Feature;
    // An empty field is a feature that is missing.
    if (text !== "") input.push([name, type === "number" && numberPattern.test(text) ? Number(text) : text]);
  });
  readValue(Object.fromEntries(input));
}

/** The fields of a record; null where quotes do not match. */
function splitFields(record: string): string[] | null {
  const fields: string[] = [];
  for (let at = 0; ; ) {
    if (record[at] !== '"') {
      const end = record.indexOf(",", at);
      fields.push(record.slice(at, end < 0 ? record.length : end));
      if (end < 0) return fields;
      at = end + 1;
      continue;
    }
    let field = "";
    for (;;) {
      const end = record.indexOf('"', at + 1);
      if (end < 0) return null;
      field += record.slice(at + 1, end);
      at = end + 1;
      if (record[at] !== '"') break;
      field += '"';
    }
    fields.push(field);
    if (at === record.length) return fields;
    if (record[at] !== ",") return null;
    at += 1;
  }
}

/** For each column, its feature's position in the row. */
function placesOf(header: readonly string[], features: readonly Feature[]): Int32Array {
  const names = header.map((name) => name.trim());
  const place = new Map(features.map(({ name }, i) => [name, i]));
  const given = new Set(names);
  const problems = [
    ...features
      .filter((feature) => feature.default === undefined && !given.has(feature.name))
      .map(({ name }) => `column "${name}" is missing`),
    ...names.filter((name) => !place.has(name)).map((name) => `column "${name.slice(0, 100)}" is unknown`),
    ...names
      .filter((name, i) => place.has(name) && names.indexOf(name) !== i)
      .map((name) => `column "${name}" is there twice`),
  ];
  if (problems.length > 0) {
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : "";
    throw new ServiceError("invalid_request", `the header: ${problems[0]}${more}`, {
      complaints: problems.slice(0, 1000).map((detail) => ({ detail, pointer: "" })),
    });
  }
  return Int32Array.from(names, (name) => place.get(name) as number);
}
