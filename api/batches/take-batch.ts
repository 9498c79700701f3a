import type { IncomingMessage } from "node:http";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { assertAnyCapacity, assertBreakerClosed, assertCapacity } from "../admission/new-work.js";
import type { OwnerStorage } from "../admission/owner-storage.js";
import { assertQueueCapacity } from "../admission/queue-capacity.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import { readUpload } from "../http/read-upload.js";
import { traceparentOf } from "../http/request-context.js";
import { TimedSlices, takeTurns } from "../http/take-turns.js";
import { type KnownVersion, versionOf } from "../models/model-directory.js";
import type { ApiMetrics } from "../monitoring/metrics.js";
import { chooseVersion } from "../predictions/choose-version.js";
import { type FollowerDependencies, followerOf } from "../predictions/webhook-follower.js";
import { type CommitDependencies, type CompleteUpload, commitUpload, type TakenBatch } from "./commit-upload.js";
import { type BatchBody, readBatchBody } from "./read-batch-body.js";
import { openUploadStage } from "./upload-stage.js";

export interface TakeBatchDependencies extends FollowerDependencies, CommitDependencies {
  redis: RedisClient;
  memory: RedisMemory;
  storage: OwnerStorage;
  metrics: ApiMetrics;
  maxBodyBytes: number;
  maxBatchRows: number;
  maxBatchBytes: number;
  /** Lifetime of an idle upload, in ms. */
  uploadKeepMs: number;
}

export interface BatchUpload extends BatchBody {
  request: IncomingMessage;
  owner: string;
  requestId: string;
  /** Rows beyond which the caller's limit refuses whatever comes. */
  mostRows: number;
  /** Counts rows against the caller's limit; 0 asks whether there is room at all. Rejects with `rate_limited`. */
  takeRows(rows: number): Promise<void>;
}

const idleMs = 60_000;

/**
 * Takes a batch as its body arrives: rows are checked and packed, chunks are staged in Redis, and one step makes them a
 * batch when all of it is there. Whatever goes wrong before leaves no batch.
 */
export async function takeBatch(deps: TakeBatchDependencies, upload: BatchUpload): Promise<TakenBatch> {
  const { idempotencyKey, model, owner, request } = upload;
  const id = newId(model.keys.tag);
  const stage = openUploadStage(deps.redis, model.keys, id, { keepMs: deps.uploadKeepMs, clock: deps.clock });
  const account = deps.storage.openUpload(owner);
  let complete: CompleteUpload;
  try {
    // One batch, one version, so that its lines can be compared.
    const chosen = chooseVersion(model, () =>
      idempotencyKey === null ? `batch|${id}` : `key|${owner}|${idempotencyKey}`,
    );
    const version = versionOf(model, upload.options.version ?? chosen);
    // What can be refused before the body is there, is.
    const named = upload.options.version ?? (upload.form === "json" ? undefined : chosen);
    if (named === undefined) assertAnyCapacity(deps, owner, model);
    else assertCapacity(deps, owner, model, named);
    await assertQueueCapacity(deps, model.keys, owner);
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
    const reading = readBatchBody(upload, version, stage, deps.maxBodyBytes);
    /** After each piece of what is read. */
    const expectFewRows = async () => {
      const { lines } = reading.reader.builder;
      if (lines > deps.maxBatchRows) {
        throw new ServiceError("body_too_large", `The batch has more than ${deps.maxBatchRows} rows (MAX_BATCH_ROWS).`);
      }
      if (lines > upload.mostRows) await upload.takeRows(lines);
      account.set(stage.chunkBytes);
      deps.storage.assertCapacity(owner);
      await stage.ready();
      await turn();
    };
    const turn = takeTurns();
    const slices = new TimedSlices();
    const digest = await readUpload(request, {
      maxBytes: deps.maxBatchBytes,
      limitName: "MAX_BATCH_BYTES",
      digest: idempotencyKey !== null,
      idleMs,
      async onBytes(bytes, sentBytes) {
        deps.memory.assertCapacity(model.keys);
        stage.sentBytes = sentBytes;
        for (let at = 0; at < bytes.length; ) {
          const slice = slices.from(bytes, at);
          at += slice.length;
          for (let all = slices.timed(() => reading.push(slice)); !all; all = reading.goOn()) await expectFewRows();
          await expectFewRows();
        }
      },
    });
    for (let all = reading.end(); !all; all = reading.goOn()) await expectFewRows();
    const options = reading.options();
    if (options.version !== undefined)
      assertSameInput(reading.version, versionOf(model, options.version), options.version);
    const { builder } = reading.reader;
    builder.end();
    if (builder.lines > deps.maxBatchRows) {
      throw new ServiceError("body_too_large", `The batch has more than ${deps.maxBatchRows} rows (MAX_BATCH_ROWS).`);
    }
    if (builder.lines === 0) throw new ServiceError("invalid_request", "The batch has no rows.");
    await stage.settled();
    await upload.takeRows(builder.lines);
    if (builder.faults > 0) deps.metrics.invalidInput.inc({ model: model.name, code: "invalid_input" }, builder.faults);
    const name = options.version ?? chosen;
    // One that only the body has named.
    if (name !== named) assertBreakerClosed(model, name, deps.clock);
    const followerJson = await followerOf(deps, model, owner, options.webhook);
    complete = {
      ...{ model, owner, requestId: upload.requestId, idempotencyKey },
      ...{ id, version: name, options, metadata: reading.metadata(), followerJson },
      ...{ digest, sortedDigest: reading.inputsDigest() ?? digest },
      ...{ chunks: builder.chunks, lines: builder.lines, bytes: stage.chunkBytes },
      traceparent: traceparentOf(request.headers.traceparent),
    };
  } catch (fault) {
    account.close();
    await stage.drop();
    throw fault;
  }
  try {
    return await commitUpload(deps, complete);
  } catch (fault) {
    // Where Redis has not said no, it may have made the batch, or may yet; what it has not made expires.
    if ((fault as Error).name === "ReplyError") await stage.drop();
    throw fault;
  } finally {
    account.close();
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

/** A version that is named after the inputs comes too late, unless it takes the same. */
function assertSameInput(packedFor: KnownVersion, wanted: KnownVersion, name: string): void {
  if (packedFor === wanted) return;
  const inputsOf = ({ announcement: { inputs, manifest } }: KnownVersion) =>
    JSON.stringify([inputs, manifest.kind, "input" in manifest ? manifest.input : null]);
  if (inputsOf(packedFor) === inputsOf(wanted)) return;
  const detail = `Version ${name} takes other inputs: put "version" before "inputs", or into the query.`;
  throw new ServiceError("invalid_request", detail, { complaints: [{ detail, pointer: "/version" }] });
}
