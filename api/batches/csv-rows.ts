import { isUtf8 } from "node:buffer";
import type { Feature } from "@millrace/shared/packing/pack-tabular.js";
import { ascii } from "@millrace/shared/predictions/ascii.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { TableReader } from "./read-rows.js";
import { keepScanned, scanNumber, scanNumbers } from "./scan-numbers.js";
import type { OnRecord } from "./split-records.js";

/**
 * Reads records of CSV (RFC 4180) into a table: first the header, whose names are the features in any order, then a row
 * each. An empty record is an empty field where there is one column, else it is passed over. Throws `invalid_request`
 * for a header that lacks a feature without a default, has one twice or one that is unknown, or whose quotes do not
 * match, and `malformed_body` for one that is not UTF-8.
 */
export function csvRecords(reader: TableReader): OnRecord {
  let places: Int32Array | null = null;
  let inOrder = false;
  const { bounds, builder, features } = reader;
  const slowly = slowReader(reader);
  return (bytes, from, to, line) => {
    if (places === null) {
      if (from === to) return;
      places = placesOf(headerOf(bytes, from, to, line), features);
      inOrder = places.every((place, i) => place === i);
      return;
    }
    if (from === to && places.length > 1) return;
    // What the columns lack has its default, which only the packer knows.
    if (places.length < features.length) return slowly(places, bytes, from, to, line);
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
    slowly(places, bytes, from, to, line);
  };
}

const { space, comma } = ascii;
const numberPattern = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;

/** Reads a record by way of the packer, whose numbers are as `JSON.parse` has them. */
function slowReader({ builder, features, readValue }: TableReader) {
  const known = features.map(({ type, values }) => (type === "category" ? new Set(values) : null));
  /** The value of a field; undefined where it is empty, so that the feature is missing. */
  const fieldValue = ({ quoted, text }: CsvField, place: number): string | number | undefined => {
    // A value of a category may have spaces around it; spaces after a comma are not part of it.
    const exact = known[place] !== null && (quoted || known[place]?.has(text) === true);
    const value = exact ? text : text.trim();
    if (value === "") return undefined;
    return features[place]?.type === "number" && numberPattern.test(value) ? Number(value) : value;
  };
  return (places: Int32Array, bytes: Buffer, from: number, to: number, line: number): void => {
    const malformed = (detail: string) => builder.addFault("malformed_csv", `line ${line}: ${detail}`);
    const record = bytes.subarray(from, to);
    const fields = isUtf8(record) ? splitFields(record.toString()) : "it is not UTF-8";
    if (typeof fields === "string") malformed(fields);
    else if (fields.length !== places.length) {
      malformed(`the header has ${places.length} fields, the line ${fields.length}`);
    } else {
      const input: [string, unknown][] = [];
      fields.forEach((field, i) => {
        const place = places[i] as number;
        const value = fieldValue(field, place);
        if (value !== undefined) input.push([(features[place] as Feature).name, value]);
      });
      readValue(Object.fromEntries(input));
    }
  };
}

function headerOf(bytes: Buffer, from: number, to: number, line: number): CsvField[] {
  const subject = `The header in line ${line}`;
  if (!isUtf8(bytes.subarray(from, to))) throw new ServiceError("malformed_body", `${subject} is not UTF-8.`);
  const fields = splitFields(bytes.toString("utf8", from, to));
  if (typeof fields === "string") throw new ServiceError("invalid_request", `${subject}: ${fields}.`);
  return fields;
}

/** Of a header that has more columns than twice the features and these, not every one is complained of. */
const spareColumns = 1000;

/**
 * For each column, its feature's position in the row: by the exact name, or by the one without the spaces around it.
 */
function placesOf(header: readonly CsvField[], features: readonly Feature[]): Int32Array {
  const most = 2 * features.length + spareColumns;
  if (header.length > most) {
    throw new ServiceError("invalid_request", `The header has ${header.length} columns, the model ${features.length}.`);
  }
  const place = new Map(features.map(({ name }, i) => [name, i]));
  const places = header.map(({ quoted, text }) => place.get(text) ?? (quoted ? undefined : place.get(text.trim())));
  const given = new Set(places);
  const seen = new Set<number | undefined>([undefined]);
  const twice = places.filter((at) => seen.size === seen.add(at).size && at !== undefined);
  const problems = [
    ...features
      .filter((feature, i) => feature.default === undefined && !given.has(i))
      .map(({ name }) => `column "${name}" is missing`),
    ...header
      .filter((_, i) => places[i] === undefined)
      .map(({ quoted, text }) => `column "${(quoted ? text : text.trim()).slice(0, 100)}" is unknown`),
    ...twice.map((at) => `duplicate column "${features[at as number]?.name}"`),
  ];
  if (problems.length > 0) {
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : "";
    throw new ServiceError("invalid_request", `The header: ${problems[0]}${more}.`, {
      complaints: problems.slice(0, 1000).map((detail) => ({ detail, pointer: "" })),
    });
  }
  return Int32Array.from(places as number[]);
}

/** A field of a record of CSV, as it was written but for its quotes. */
interface CsvField {
  text: string;
  quoted: boolean;
}

/** The fields of a record, or what is wrong with its quotes. */
function splitFields(record: string): CsvField[] | string {
  const fields: CsvField[] = [];
  for (let at = 0; ; ) {
    if (record[at] !== '"') {
      const end = record.indexOf(",", at);
      fields.push({ text: record.slice(at, end < 0 ? record.length : end), quoted: false });
      if (end < 0) return fields;
      at = end + 1;
      continue;
    }
    let text = "";
    for (;;) {
      const end = record.indexOf('"', at + 1);
      if (end < 0) return "the quote that opens here is never closed";
      text += record.slice(at + 1, end);
      at = end + 1;
      if (record[at] !== '"') break;
      text += '"';
    }
    fields.push({ text, quoted: true });
    if (at === record.length) return fields;
    if (record[at] !== ",") return "a closing quote must be followed by a comma or the end of the line";
    at += 1;
  }
}
