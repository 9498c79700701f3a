import { isUtf8 } from "node:buffer";
import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest, TabularManifest } from "@millrace/shared/models/manifest.js";
import { type Feature, featuresOf, packedDefaults } from "@millrace/shared/packing/pack-tabular.js";
import type { Packer } from "@millrace/shared/packing/packer.js";
import { ascii } from "@millrace/shared/predictions/ascii.js";
import type { ServiceError } from "@millrace/shared/service/errors.js";
import { unpackTensors } from "@millrace/shared/tensors/tensor-pack.js";
import { checkJson } from "../http/check-json.js";
import { type BuiltChunk, type ChunkBuilder, Packs, rowsOfOutputs, Table } from "./chunk-builder.js";
import { type Bounds, keepScanned, scanNumber, scanNumbers } from "./scan-numbers.js";

/** Reads the inputs of a batch, one at a time and each as bytes of JSON, into chunks. */
export interface RowReader {
  readonly builder: ChunkBuilder;
  /** Reads the input that is JSON text in bytes [from, to). What is not valid becomes a fault of its line. */
  readJson(bytes: Buffer, from: number, to: number): void;
  /**
   * Reads the input that begins at `from` and ends before `to`, if it can without knowing where; returns its end, else
   * -1, having read nothing. There must be 16 more bytes behind `to`.
   */
  readUnbounded?(bytes: Buffer, from: number, to: number): number;
  /** Reads an input that is parsed already. */
  readValue(input: unknown): void;
}

/** A reader of tabular rows, whose numbers can also be read straight into the table. */
export interface TableReader extends RowReader {
  readonly builder: Table;
  readonly features: readonly Feature[];
  readonly bounds: Bounds | null;
}

/** As many as a tabular model may have features. */
const mostRowKeys = 100_000;
const tableChunkBytes = 640 * 1024;
const packsChunkBytes = 1024 * 1024;
/** A chunk of fewer bytes is not full, however many inputs one run takes: it costs as much as some small inputs. */
const packsLeastBytes = 256;

export interface RowReaderOptions {
  /** Bytes that were sent so far, which limit the texts of faults. */
  sentBytes(): number;
  /** Called for what is not JSON or UTF-8, with the builder to tell. */
  onMalformed?: OnMalformed;
}

/** The reader of a model version's inputs, which hands on full chunks. */
export function rowReader(
  { manifest, outputs = [], pack }: { manifest: Manifest; pack: Packer; outputs?: readonly TensorSpec[] },
  onChunk: (chunk: BuiltChunk) => void,
  { onMalformed = lineFault, sentBytes }: RowReaderOptions,
): RowReader {
  const context = { pack, onChunk, onMalformed, sentBytes };
  const mostRows = rowsOfOutputs(manifest, outputs);
  switch (manifest.kind) {
    case "tabular":
      return tableReader(manifest, mostRows, context);
    case "text":
    case "image":
    case "tensor":
      return packsReader(Math.min(mostRows, manifest.batching.max_batch_rows), context);
  }
}

type OnMalformed = (builder: ChunkBuilder, what: "JSON" | "UTF-8") => void;

const lineFault: OnMalformed = (builder, what) => builder.addFault("malformed_json", `the line is not ${what}`);

interface ReaderContext extends Required<RowReaderOptions> {
  pack: Packer;
  onChunk(chunk: BuiltChunk): void;
}

/** Whether a reader is one of tabular rows. */
export const readsTable = (reader: RowReader): reader is TableReader => reader.builder instanceof Table;

function packsReader(rows: number, { onChunk, onMalformed, pack, sentBytes }: ReaderContext): RowReader {
  const builder = new Packs({ rows, leastBytes: packsLeastBytes, bytes: packsChunkBytes, sentBytes }, onChunk);
  const readValue = (input: unknown) => {
    const packed = pack(input);
    if ("pack" in packed) builder.addPack(packed.pack);
    else builder.addFault("invalid_input", complaintText(packed.complaints));
  };
  return { builder, readValue, readJson: jsonReader(builder, readValue, onMalformed) };
}

function tableReader(
  manifest: TabularManifest,
  mostRows: number,
  { onChunk, onMalformed, pack, sentBytes }: ReaderContext,
): TableReader {
  const features = featuresOf(manifest);
  const width = features.length;
  const rows = Math.max(1, Math.min(manifest.batching.bulk_rows, mostRows, Math.floor(tableChunkBytes / (4 * width))));
  const builder = new Table({ tensor: manifest.input.tensor, width, rows, sentBytes }, onChunk);
  const bounded = features.some(({ max, min, type }) => type !== "number" || (min ?? max) !== undefined);
  const bounds: Bounds | null = bounded
    ? {
        // No bare number is a category or a date, so that those are left to the packer.
        min: Float64Array.from(features, ({ min, type }) => (type === "number" ? (min ?? -Infinity) : Infinity)),
        max: Float64Array.from(features, ({ max }) => max ?? Number.POSITIVE_INFINITY),
      }
    : null;

  const readValue = (input: unknown) => {
    const packed = pack(input);
    if (!("pack" in packed)) return builder.addFault("invalid_input", complaintText(packed.complaints));
    const [tensor] = unpackTensors(packed.pack);
    const bytes = tensor?.bytes as Uint8Array;
    new Uint8Array(builder.row.buffer).set(bytes, 4 * builder.rowAt);
    builder.addRow();
  };
  const place = new Map(features.map(({ name }, i) => [name, i]));
  const defaults = packedDefaults(features);
  const slowly = jsonReader(builder, readValue, onMalformed);
  /** Beginnings of the members of the objects before: `{"first":`, `,"second":` and so on, in their order. */
  let order: MemberOrder | null = null;
  const readJson = (bytes: Buffer, from: number, to: number) => {
    const first = bytes[from];
    let end = -1;
    if (first === openBracket) {
      end = scanNumbers(bytes, from + 1, to, builder.row, builder.rowAt, width, bounds);
      if (end >= 0) end = closes(bytes, end, to, closeBracket);
    } else if (first === openBrace && order !== null) end = scanObject(bytes, from, to, order, builder, bounds);
    if (end === to) return builder.addRow();
    const faults = builder.faults;
    slowly(bytes, from, to);
    if (first === openBrace && builder.faults === faults) order = orderOf(bytes, from, to, place, defaults);
  };
  const readUnbounded = (bytes: Buffer, from: number, to: number): number => {
    if (bytes[from] !== openBracket) return -1;
    let end = scanNumbers(bytes, from + 1, to, builder.row, builder.rowAt, width, bounds);
    if (end >= 0) end = closes(bytes, end, to, closeBracket);
    if (end >= 0) builder.addRow();
    return end;
  };
  return { builder, features, bounds, readValue, readJson, readUnbounded };
}

const { space, comma, openBracket, closeBracket, openBrace, closeBrace } = ascii;

/** Where the row ends if nothing but `bracket` and spaces stand in [at, to), which is `to`; else -1. */
function closes(bytes: Buffer, at: number, to: number, bracket: number): number {
  let p = at;
  while (bytes[p] === space && p < to) p += 1;
  if (bytes[p] !== bracket || p >= to) return -1;
  p += 1;
  while (bytes[p] === space && p < to) p += 1;
  return p;
}

interface MemberOrder {
  keys: Buffer[];
  /** Position in the row of each. */
  places: number[];
  /** Positions of the features that are left out, and what stands there then. */
  lacking: number[];
  defaults: Float32Array;
}

/** The order of an object's members, as the bytes of their keys; objects of one sender mostly have the same. */
function orderOf(
  bytes: Buffer,
  from: number,
  to: number,
  place: ReadonlyMap<string, number>,
  defaults: Float32Array,
): MemberOrder {
  const names = Object.keys(JSON.parse(bytes.toString("utf8", from, to)) as object);
  const places = names.map((name) => place.get(name) as number);
  const given = new Set(places);
  return {
    keys: names.map((name) => Buffer.from(`${JSON.stringify(name)}:`)),
    places,
    lacking: [...place.values()].filter((at) => !given.has(at)),
    defaults,
  };
}

/**
 * Reads an object whose members stand in that order into every place of the row, which still has the numbers of
 * another.
 */
function scanObject(
  bytes: Buffer,
  from: number,
  to: number,
  { defaults, keys, lacking, places }: MemberOrder,
  { row, rowAt }: Table,
  bounds: Bounds | null,
): number {
  let p = from + 1;
  for (let i = 0; i < keys.length; i++) {
    if (i > 0) {
      if (bytes[p] !== comma) return -1;
      p += 1;
    }
    if (bytes[p] === space) p += 1;
    const key = keys[i] as Buffer;
    const place = places[i] as number;
    for (let k = 0; k < key.length; k++, p++) if (bytes[p] !== key[k]) return -1;
    p = scanNumber(bytes, p, to);
    if (p < 0 || !keepScanned(row, rowAt + place, bounds, place)) return -1;
  }
  for (let i = 0; i < lacking.length; i++) {
    const place = lacking[i] as number;
    row[rowAt + place] = defaults[place] as number;
  }
  return closes(bytes, p, to, closeBrace);
}

/** A line that is longer is not compared with the next. */
const longestRepeatBytes = 4096;

function jsonReader(
  builder: ChunkBuilder,
  readValue: (input: unknown) => void,
  onMalformed: OnMalformed,
): RowReader["readJson"] {
  const read = (row: Buffer) => {
    if (!isUtf8(row)) return onMalformed(builder, "UTF-8");
    let input: unknown;
    try {
      input = JSON.parse(row.toString());
    } catch {
      return onMalformed(builder, "JSON");
    }
    try {
      if (row.includes(openBrace)) checkJson(row, { maxBodyKeys: mostRowKeys });
    } catch (fault) {
      return builder.addFault("invalid_input", (fault as ServiceError).message);
    }
    readValue(input);
  };
  /** The last line if it was no valid input: the same again has the same fault, and an exception costs much. */
  let faulty: Buffer | null = null;
  return (bytes, from, to) => {
    const row = bytes.subarray(from, to);
    if (faulty?.equals(row)) return builder.repeatFault();
    const { faults } = builder;
    read(row);
    faulty = builder.faults > faults && row.length <= longestRepeatBytes ? Buffer.from(row) : null;
  };
}

function complaintText(complaints: readonly { detail: string; pointer: string }[]): string {
  const more = complaints.length > 1 ? ` (and ${complaints.length - 1} more)` : "";
  return `${complaints[0]?.detail}${more}`;
}
