import { ServiceError } from "@millrace/shared/service/errors.js";
import { type KnownModel, type KnownVersion, versionOf } from "../models/model-directory.js";
import { compactMetadata } from "../predictions/submission.js";
import { type BatchOptions, parseBatchOptions } from "./batch-options.js";
import { csvRecords } from "./csv-rows.js";
import { InputsDigest } from "./inputs-digest.js";
import { type RowReader, readsTable, rowReader } from "./read-rows.js";
import { EnvelopeSplitter } from "./split-envelope.js";
import { LineSplitter } from "./split-lines.js";
import { RecordSplitter } from "./split-records.js";
import type { UploadStage } from "./upload-stage.js";

const longestOptionsBytes = 64 * 1024;

/** Parameters for the reading of a body. */
export interface BatchBody {
  model: KnownModel;
  form: "json" | "ndjson" | "csv";
  /** Options of the query; a JSON body has them itself, and may have the version too. */
  options: BatchOptions;
  /** The metadata of the query as JSON text, as the caller wrote them. */
  metadata: string | undefined;
  idempotencyKey: string | null;
}

/** Reads the body of a batch piece by piece: its rows go into chunks, what stands beside them is told at the end. */
export interface Reading {
  readonly reader: RowReader;
  /** The version that the inputs are read for. */
  readonly version: KnownVersion;
  /** Reads a piece. False where there is more to do first, of which `goOn` does some at a time until it is true. */
  push(bytes: Buffer): boolean;
  goOn(): boolean;
  /** The body is over; false as for `push`. */
  end(): boolean;
  /** Options of the body and the query, once all is read. */
  options(): BatchOptions;
  metadata(): string | undefined;
  /** Of a JSON body with an idempotency key; null for another, of which the digest is by its bytes. */
  inputsDigest(): string | null;
}

/** Begins to read a body, whose rows may have `longest` bytes each. Throws `unsupported_media_type`. */
export function readBatchBody(body: BatchBody, version: KnownVersion, stage: UploadStage, longest: number): Reading {
  const { form, options } = body;
  if (form === "json") return readEnvelope(body, version, stage, longest);
  const reader = rowReader(inputOf(version), stage.add, { sentBytes: () => stage.sentBytes });
  const base = { reader, version, options: () => options, metadata: () => body.metadata, inputsDigest: () => null };
  if (form === "csv") {
    if (!readsTable(reader)) throw new ServiceError("unsupported_media_type", "text/csv is for tabular models only.");
    const splitter = new RecordSplitter({
      longestRecordBytes: longest,
      onRecord: csvRecords(reader),
      onTooLong: () => tooLong(reader, longest),
    });
    return {
      ...base,
      push: (bytes) => splitter.push(bytes),
      goOn: () => splitter.goOn(),
      end: () => splitter.end(),
    };
  }
  const splitter = new LineSplitter({
    longestLineBytes: longest,
    onLine: reader.readJson,
    onTooLong: () => tooLong(reader, longest),
  });
  return {
    ...base,
    ...inOneGo(
      (bytes) => splitter.push(bytes),
      () => splitter.end(),
    ),
  };
}

/** Reading that never has more to do than what has come. */
const inOneGo = (push: (bytes: Buffer) => void, end: () => void) => ({
  push(bytes: Buffer): boolean {
    push(bytes);
    return true;
  },
  goOn: () => true,
  end(): boolean {
    end();
    return true;
  },
});

/** Reads a JSON body, whose inputs may be those of a version that is named before them. */
function readEnvelope(
  { idempotencyKey, model, options }: BatchBody,
  preset: KnownVersion,
  stage: UploadStage,
  longest: number,
): Reading {
  const readerOf = (version: KnownVersion) =>
    rowReader(inputOf(version), stage.add, {
      sentBytes: () => stage.sentBytes,
      onMalformed(_builder, what) {
        throw new ServiceError("malformed_json", `The body is not ${what}.`);
      },
    });
  let version = preset;
  let reader = readerOf(version);
  let said: BatchOptions | undefined;
  const inputs = idempotencyKey === null ? null : new InputsDigest();
  const splitter = new EnvelopeSplitter({
    longestElementBytes: longest,
    longestOptionsBytes,
    onInputs(before) {
      if (typeof before.version !== "string") return;
      version = versionOf(model, before.version);
      reader = readerOf(version);
    },
    readElement(bytes, from, to) {
      const end = reader.readUnbounded?.(bytes, from, to) ?? -1;
      if (end >= 0) inputs?.add(bytes, from, end);
      return end;
    },
    onElement(bytes, from, to) {
      reader.readJson(bytes, from, to);
      inputs?.add(bytes, from, to);
    },
    onTooLong() {
      tooLong(reader, longest);
      inputs?.addTooLong();
    },
  });
  return {
    get reader() {
      return reader;
    },
    get version() {
      return version;
    },
    ...inOneGo(
      (bytes) => splitter.push(bytes),
      () => {
        said = parseBatchOptions(splitter.end());
      },
    ),
    inputsDigest: () => inputs?.end() ?? null,
    metadata: () => compactMetadata(splitter.rawOption("metadata")),
    options: () => ({ ...(said as BatchOptions), version: said?.version ?? options.version }),
  };
}

const inputOf = ({ announcement: { manifest, outputs }, pack }: KnownVersion) => ({ manifest, outputs, pack });

const tooLong = (reader: RowReader, bytes: number) =>
  reader.builder.addFault("row_too_large", `the row has more than ${bytes} bytes (MAX_BODY_BYTES)`);
