import type { IncomingMessage } from "node:http";
import { type BatchRecord, batchFrame } from "@millrace/shared/predictions/batch.js";
import { canonical } from "@millrace/shared/predictions/canonical-json.js";
import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { newId, noticeChannel } from "@millrace/shared/redis/keys.js";
import { commitBatch } from "@millrace/shared/scripts/batches/commit-batch.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Logger } from "@millrace/shared/service/log.js";
import { expectQueueRoom } from "../admission/expect-queue-room.js";
import { expectClosed, expectRoom, expectRoomForAny } from "../admission/new-work.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import { readUpload } from "../http/read-upload.js";
import type { KnownModel, KnownVersion } from "../models/model-directory.js";
import type { ApiMetrics } from "../monitoring/metrics.js";
import { chooseVersion } from "../predictions/choose-version.js";
import { compactMetadata, usedForAnother } from "../predictions/submission.js";
import { type FollowerDependencies, followerOf } from "../predictions/webhook-follower.js";
import { type BatchOptions, parseBatchOptions } from "./batch-options.js";
import { csvRecords } from "./csv-rows.js";
import { InputsDigest } from "./inputs-digest.js";
import { type RowReader, readsTable, rowReader } from "./read-rows.js";
import { EnvelopeSplitter } from "./split-envelope.js";
import { LineSplitter } from "./split-lines.js";
import { RecordSplitter } from "./split-records.js";
import { type ChunkStage, stageChunks } from "./stage-chunks.js";

export interface TakeBatchDependencies extends FollowerDependencies {
  redis: RedisClient;
  memory: RedisMemory;
  confirmed: ConfirmedWrite;
  metrics: ApiMetrics;
  log: Logger;
  maxBodyBytes: number;
  maxBatchRows: number;
  maxBatchBytes: number;
  /** How long what has arrived of an upload is kept while nothing more does. */
  uploadKeepMs: number;
  resultTtlSeconds: number;
  keyPrefix: string;
  acceptSettings: AcceptSettings;
}

export interface BatchUpload {
  request: IncomingMessage;
  model: KnownModel;
  owner: string;
  form: "json" | "ndjson" | "csv";
  /** What the query says; a JSON body says it itself, but for the version, which it may say too. */
  options: BatchOptions;
  /** The metadata of the query as JSON text, as the caller wrote them. */
  metadata: string | undefined;
  requestId: string;
  idempotencyKey: string | null;
  /** Rows beyond which the caller's limit refuses whatever comes. */
  mostRows: number;
  /** Counts rows against the caller's limit; 0 asks whether there is room at all. Rejects with `rate_limited`. */
  takeRows(rows: number): Promise<void>;
}

/** What an upload came to: a new batch, or the one that the same key and body made before. */
export interface TakenBatch {
  id: string;
  /** A new batch as it was when it was accepted. */
  batch: BatchRecord | null;
  replayed: boolean;
}

const idleMs = 60_000;
const longestOptionsBytes = 64 * 1024;

/**
 * Takes a batch as its body arrives: rows are checked and packed, chunks are staged in Redis, and one step makes them a
 * batch when all of it is there. Whatever goes wrong before leaves no batch.
 */
export async function takeBatch(deps: TakeBatchDependencies, upload: BatchUpload): Promise<TakenBatch> {
  const { idempotencyKey, model, owner, request } = upload;
  const id = newId(model.keys.tag);
  const stage = stageChunks(deps.redis, model.keys, id, deps.uploadKeepMs);
  let complete: CompleteUpload;
  try {
    // One batch, one version, so that its lines can be compared.
    const chosen = chooseVersion(model, () =>
      idempotencyKey === null ? `batch|${id}` : `key|${owner}|${idempotencyKey}`,
    );
    const version = versionOf(model, upload.options.version ?? chosen);
    // What can be refused before the body is there, is.
    const named = upload.options.version ?? (upload.form === "json" ? undefined : chosen);
    if (named === undefined) expectRoomForAny(deps, model);
    else expectRoom(deps, model, named);
    await expectQueueRoom(deps, model.keys, owner);
    await upload.takeRows(0);
    await followerOf(deps, model, owner, upload.options.webhook);
    if (await mayRunEarly(deps, upload)) {
      stage.early = {
        uploader: owner,
        weight: deps.acceptSettings.weightOf?.(owner) ?? 1,
        version: upload.options.version ?? chosen,
        priority: upload.options.priority,
      };
    }
    const reading = read(deps, upload, version, stage);
    /** After each piece of what is read. */
    const expectFewRows = async () => {
      const { lines } = reading.reader.builder;
      if (lines > deps.maxBatchRows) {
        throw new ServiceError("body_too_large", `a batch may have ${deps.maxBatchRows} rows (MAX_BATCH_ROWS)`);
      }
      if (lines > upload.mostRows) await upload.takeRows(lines);
      await stage.ready();
    };
    const digest = await readUpload(request, {
      maxBytes: deps.maxBatchBytes,
      limitName: "MAX_BATCH_BYTES",
      digest: idempotencyKey !== null,
      idleMs,
      async onBytes(bytes) {
        deps.memory.expectRoom(model.keys);
        for (let all = reading.push(bytes); ; all = reading.goOn()) {
          await expectFewRows();
          if (all) return;
        }
      },
    });
    for (let all = reading.end(); !all; all = reading.goOn()) await expectFewRows();
    const options = reading.options();
    if (options.version !== undefined) sameInput(reading.version, versionOf(model, options.version));
    const { builder } = reading.reader;
    builder.end();
    if (builder.lines > deps.maxBatchRows) {
      throw new ServiceError("body_too_large", `a batch may have ${deps.maxBatchRows} rows (MAX_BATCH_ROWS)`);
    }
    if (builder.lines === 0) throw new ServiceError("invalid_request", "there is no input in the body");
    await stage.settled();
    await upload.takeRows(builder.lines);
    if (builder.faults > 0) deps.metrics.invalidInput.inc({ model: model.name, code: "invalid_input" }, builder.faults);
    const name = options.version ?? chosen;
    // One that only the body has named.
    if (name !== named) expectClosed(model, name);
    const followerJson = await followerOf(deps, model, owner, options.webhook);
    complete = {
      ...{ id, version: name, options, metadata: reading.metadata(), followerJson },
      ...{ digest, sortedDigest: reading.inputsDigest() ?? digest },
      ...{ chunks: builder.chunks, lines: builder.lines },
    };
  } catch (fault) {
    await stage.drop();
    throw fault;
  }
  try {
    return await commit(deps, upload, complete);
  } catch (fault) {
    // Where Redis has not said no, it may have made the batch, or may yet; what it has not made expires.
    if ((fault as Error).name === "ReplyError") await stage.drop();
    throw fault;
  }
}

/**
 * Whether rows may be run before all of the upload is there: not where its end may yet name another version, where rows
 * are counted first, where nobody is there to run them, or where it may be an upload that was accepted before.
 */
async function mayRunEarly(
  { redis }: TakeBatchDependencies,
  { form, idempotencyKey, model, mostRows, owner }: BatchUpload,
): Promise<boolean> {
  if (mostRows < Number.POSITIVE_INFINITY || model.workersAlive === 0) return false;
  if (form === "json" && model.versions.size > 1) return false;
  return idempotencyKey === null || (await redis.exists(model.keys.idempotency(owner, idempotencyKey))) === 0;
}

/** What is known of an upload when all of it is there. */
interface CompleteUpload {
  id: string;
  version: string;
  options: BatchOptions;
  metadata: string | undefined;
  /** Of the body, and of its inputs in whatever order the members of their objects stand. */
  digest: string;
  sortedDigest: string;
  followerJson: string | null;
  chunks: number;
  lines: number;
}

interface Reading {
  readonly reader: RowReader;
  /** The version that the inputs are read for. */
  readonly version: KnownVersion;
  /** Reads a piece. False where there is more to do first, of which `goOn` does some at a time until it is true. */
  push(bytes: Buffer): boolean;
  goOn(): boolean;
  /** The body is over; false as for `push`. */
  end(): boolean;
  /** What the body and the query say beside the inputs, once all is read. */
  options(): BatchOptions;
  metadata(): string | undefined;
  /** Of a JSON body with an idempotency key; null for another, of which the digest is by its bytes. */
  inputsDigest(): string | null;
}

function read(deps: TakeBatchDependencies, upload: BatchUpload, version: KnownVersion, stage: ChunkStage): Reading {
  const { form, options } = upload;
  const longest = deps.maxBodyBytes;
  if (form === "json") return readEnvelope(upload, version, stage, longest);
  const reader = rowReader(inputOf(version), stage.add);
  const base = { reader, version, options: () => options, metadata: () => upload.metadata, inputsDigest: () => null };
  if (form === "csv") {
    if (!readsTable(reader)) throw new ServiceError("unsupported_media_type", "text/csv is for tabular models");
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
  { idempotencyKey, model, options }: BatchUpload,
  preset: KnownVersion,
  stage: ChunkStage,
  longest: number,
): Reading {
  const readerOf = (version: KnownVersion) =>
    rowReader(inputOf(version), stage.add, (_builder, what) => {
      throw new ServiceError("malformed_json", `the body is not ${what}`);
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
      const end = reader.readOnTheWay?.(bytes, from, to) ?? -1;
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

function versionOf(model: KnownModel, name: string): KnownVersion {
  const version = model.versions.get(name);
  if (version === undefined) throw new ServiceError("version_not_found", `the model has no version ${name}`);
  return version;
}

/** A version that is named after the inputs comes too late, unless it takes the same. */
function sameInput(packedFor: KnownVersion, wanted: KnownVersion): void {
  if (packedFor === wanted) return;
  const inputsOf = ({ announcement: { inputs, manifest } }: KnownVersion) =>
    JSON.stringify([inputs, manifest.kind, "input" in manifest ? manifest.input : null]);
  if (inputsOf(packedFor) === inputsOf(wanted)) return;
  const detail = "that version takes other inputs, so it must stand before them, or in the query";
  throw new ServiceError("invalid_request", detail, { complaints: [{ detail, pointer: "/version" }] });
}

async function commit(
  deps: TakeBatchDependencies,
  { idempotencyKey, model, owner, requestId }: BatchUpload,
  { chunks, digest, followerJson, id, lines, metadata, options, sortedDigest, version }: CompleteUpload,
): Promise<TakenBatch> {
  const { announcement } = versionOf(model, version);
  const { output } = announcement.manifest;
  const modelDigest = announcement.digest;
  const inOrder = { ...options, ...(options.metadata && { metadata: canonical(options.metadata) }) };
  const commit = {
    id,
    owner,
    nowMs: Date.now(),
    chunks,
    lines,
    priority: options.priority,
    resultTtlMs: deps.resultTtlSeconds * 1000,
    idempotency:
      idempotencyKey === null
        ? null
        : {
            key: idempotencyKey,
            bodyHash: digestOf("batch", digest, JSON.stringify(options)),
            sortedHash: digestOf("batch", sortedDigest, JSON.stringify(inOrder)),
          },
    followerJson,
    channelPrefix: noticeChannel(deps.keyPrefix, ""),
    version,
    weight: deps.acceptSettings.weightOf?.(owner) ?? 1,
    fixed: {
      ...batchFrame({ id, model: model.name, version, modelDigest, metadata, retryOf: null }),
      ...(output.head === "classifier" && { labels: JSON.stringify(output.labels) }),
    },
  };
  const outcome = await deps.confirmed(model.keys, (redis) => commitBatch(redis, model.keys, commit));
  if (outcome.kind === "mismatch") {
    throw usedForAnother();
  }
  if (outcome.kind === "lost") {
    throw new ServiceError("redis_unavailable", "what had arrived of the batch is gone; send it again", {
      retryAfterSeconds: 1,
    });
  }
  if (outcome.kind === "accepted") {
    deps.log.info("batch accepted", { request_id: requestId, model: model.name, batch_id: id, rows: lines });
    if (outcome.batch?.json != null) deps.log.info("batch finished", { batch_id: id, model: model.name, version });
  }
  return { id: outcome.id, batch: outcome.batch, replayed: outcome.kind === "replayed" };
}
