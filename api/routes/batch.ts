import { once } from "node:events";
import { batchFrame, batchJson } from "@millrace/shared/predictions/batch.js";
import { rawMember } from "@millrace/shared/predictions/raw-member.js";
import type { ConfirmedWrite } from "@millrace/shared/redis/confirm-writes.js";
import { digestOf, newId, noticeChannel } from "@millrace/shared/redis/keys.js";
import { cancelBatch, commitBatch, readLabels } from "@millrace/shared/scripts/batches/batches.js";
import { dropStaged, stageFailed } from "@millrace/shared/scripts/batches/stage-chunks.js";
import type { AcceptSettings } from "@millrace/shared/scripts/queue/accept.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { type Request, type RequestHandler, type Response, Router } from "express";
import type { RateLimits } from "../access/rate-limits.js";
import { expectQueueRoom } from "../admission/expect-queue-room.js";
import { expectRoom } from "../admission/new-work.js";
import type { RedisMemory } from "../admission/redis-memory.js";
import { csvFormat, ndjsonFormat } from "../batches/format-results.js";
import { awaitBatch, type OwnBatchDependencies, ownBatch } from "../batches/own-batch.js";
import { resultPieces } from "../batches/read-results.js";
import { BatchWatch, streamBatchEvents } from "../batches/stream-batch-events.js";
import { acceptsJson } from "../http/http-preferences.js";
import { onlyQuery, sendJson, waitMsOf, whenGone } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { takeTurns } from "../http/take-turns.js";
import { idempotencyKeyOf, usedForAnother } from "../predictions/submission.js";

interface BatchDependencies extends OwnBatchDependencies {
  memory: RedisMemory;
  confirmed: ConfirmedWrite;
  keyPrefix: string;
  resultTtlSeconds: number;
  acceptSettings: AcceptSettings;
  uploadKeepMs: number;
  limits: RateLimits | null;
  maySubmit: readonly RequestHandler[];
  mayPredict: RequestHandler;
  mayRead: RequestHandler;
}

/** `/v1/batches/{id}`: read, events, results, cancel, retry. */
export function batchRoutes(deps: BatchDependencies): Router {
  const router = Router();
  const watch = new BatchWatch(deps.redis);
  resource(router, "/v1/batches/:id", {
    get: [
      deps.mayRead,
      acceptsJson,
      async (request, response) => {
        onlyQuery(request, "wait");
        const waitMs = waitMsOf(request.query.wait, "bad_query");
        const { owner } = response.locals.caller;
        const gone = whenGone(response);
        const json = await awaitBatch(deps, owner, request.params.id, waitMs, gone);
        if (!gone.aborted) sendJson(response, 200, json);
      },
    ],
  });

  resource(router, "/v1/batches/:id/events", {
    get: [
      deps.mayRead,
      async (request, response) => {
        onlyQuery(request);
        const { batch, model } = await ownBatch(deps, response.locals.caller.owner, request.params.id);
        const id = request.params.id;
        await streamBatchEvents({ ...deps, watch }, model, id, batch, response, whenGone(response));
      },
    ],
  });

  resource(router, "/v1/batches/:id/results", {
    get: [deps.mayRead, (request, response) => sendResults(deps, request.params.id, request, response)],
  });

  resource(router, "/v1/batches/:id/cancel", {
    post: [
      deps.mayPredict,
      acceptsJson,
      async (request, response) => {
        const { batch, model } = await ownBatch(deps, response.locals.caller.owner, request.params.id);
        const id = request.params.id;
        const settings = {
          resultTtlMs: deps.resultTtlSeconds * 1000,
          channelPrefix: noticeChannel(deps.keyPrefix, ""),
        };
        const cancel = () => deps.confirmed(model.keys, (redis) => cancelBatch(redis, model.keys, id, settings));
        const json = batch.json === null ? await cancel() : null;
        if (json === null) throw new ServiceError("state_conflict", "it is final already");
        sendJson(response, 200, json);
      },
    ],
  });

  resource(router, "/v1/batches/:id/retry", {
    post: [
      ...deps.maySubmit,
      acceptsJson,
      async (request, response) => {
        const caller = response.locals.caller;
        const { owner } = caller;
        const takeRows = async (rows: number) => deps.limits?.rows(caller, rows, response);
        const idempotencyKey = idempotencyKeyOf(request);
        const { id, replayed } = await retryBatch(deps, owner, request.params.id, idempotencyKey, takeRows);
        response.setHeader("Location", `/v1/batches/${id}`);
        if (replayed) response.setHeader("Idempotency-Replayed", "true");
        sendJson(response, 202, batchJson((await ownBatch(deps, owner, id)).batch, Date.now()));
      },
    ],
  });
  return router;
}

const chunksAtOnce = 32;

/**
 * Makes a new batch of the lines that failed, whose inputs were kept when they did; `replayed`: or leads to the one that the
 * same key made before. Throws `state_conflict`, and `idempotency_mismatch` for a key of another request.
 */
async function retryBatch(
  deps: BatchDependencies,
  owner: string,
  id: string,
  idempotencyKey: string | null,
  takeRows: (rows: number) => Promise<void>,
): Promise<{ id: string; replayed: boolean }> {
  const { batch, model } = await ownBatch(deps, owner, id);
  if (batch.json === null) throw new ServiceError("state_conflict", "it is not final yet");
  if (batch.failed === 0) throw new ServiceError("state_conflict", "none of its rows failed");
  expectRoom(deps, model, batch.version);
  await expectQueueRoom(deps, model.keys, owner);
  await takeRows(batch.failed);
  const { keys } = model;
  const next = newId(keys.tag);
  const numbers = (await deps.redis.hkeys(keys.batchFailed(id))).sort((a, b) => Number(a) - Number(b));
  let lines = 0;
  for (let i = 0; i < numbers.length; i += chunksAtOnce) {
    lines += await stageFailed(deps.redis, keys, id, next, numbers.slice(i, i + chunksAtOnce), deps.uploadKeepMs);
  }
  const { model_digest: modelDigest } = JSON.parse(batch.json) as { model_digest: string };
  const metadata = rawMember(Buffer.from(batch.json), "metadata");
  const { version } = batch;
  const labels = await readLabels(deps.redis, keys, id);
  const commit = {
    id: next,
    owner,
    nowMs: Date.now(),
    chunks: numbers.length,
    lines,
    priority: 0,
    resultTtlMs: deps.resultTtlSeconds * 1000,
    idempotency: idempotencyKey === null ? null : { key: idempotencyKey, bodyHash: digestOf("retry", id) },
    followerJson: null,
    channelPrefix: noticeChannel(deps.keyPrefix, ""),
    version,
    weight: deps.acceptSettings.weightOf?.(owner) ?? 1,
    fixed: {
      ...batchFrame({ id: next, model: model.name, version, modelDigest, metadata, retryOf: id }),
      ...(labels !== null && { labels: JSON.stringify(labels) }),
    },
  };
  const { id: made, kind } = await deps.confirmed(keys, (redis) => commitBatch(redis, keys, commit));
  if (kind === "accepted" && lines > 0) return { id: next, replayed: false };
  await dropStaged(deps.redis, keys, next);
  if (kind === "replayed") return { id: made, replayed: true };
  if (kind === "mismatch") throw usedForAnother();
  throw new ServiceError("batch_not_found", "its inputs are not kept any more");
}

const usualLimit = 1000;
const largestLimit = 10_000;
/** A page ends early when it holds that much text, because an output may be large. */
const pageBytes = 8 * 1024 * 1024;

/** Sends results as NDJSON or CSV streams, or as JSON pages, from the index that the query names. */
async function sendResults(deps: BatchDependencies, id: string, request: Request, response: Response): Promise<void> {
  onlyQuery(request, "from", "limit", "cursor");
  const { owner } = response.locals.caller;
  const { batch, model } = await ownBatch(deps, owner, id);
  const type = request.accepts("application/x-ndjson", "text/csv", "application/json");
  const { cursor, from, limit } = request.query;
  const first = wholeNumber("from", cursor ?? from, 0, 0, 0xffff_ffff);
  const turn = takeTurns();
  const gone = whenGone(response);
  if (type === "application/json") {
    const count = wholeNumber("limit", limit, usualLimit, 1, largestLimit);
    const format = ndjsonFormat(await readLabels(deps.redis, model.keys, id), ",");
    const parts: Buffer[] = [];
    let [bytes, lines] = [0, 0];
    for await (const piece of resultPieces(deps.redis, model.keys, id, batch, format, first, count)) {
      const part = Buffer.from(piece.text);
      parts.push(part);
      bytes += part.length;
      lines += piece.lines;
      if (gone.aborted) return;
      if (piece.whole && bytes >= pageBytes) break;
      await turn();
    }
    const next = first + lines;
    const more = batch.json === null || next < batch.total;
    // But for the comma after the last.
    const data = Buffer.concat(parts, Math.max(0, bytes - 1));
    const ending = `],"next_cursor":${more ? `"${next}"` : "null"}}`;
    return sendJson(response, 200, Buffer.concat([Buffer.from('{"data":['), data, Buffer.from(ending)]));
  }
  if (limit !== undefined || cursor !== undefined) {
    throw new ServiceError("bad_query", "limit and cursor are for application/json pages");
  }
  if (type === false) {
    throw new ServiceError("not_acceptable", "results are application/x-ndjson, text/csv or application/json");
  }
  const labels = await readLabels(deps.redis, model.keys, id);
  const format = type === "text/csv" ? csvFormat(labels) : ndjsonFormat(labels);
  response.writeHead(200, { "Content-Type": format.contentType, "Cache-Control": "no-store" });
  if (request.method === "HEAD") {
    response.end();
    return;
  }
  if (format.header !== "") response.write(format.header);
  for await (const { text } of resultPieces(deps.redis, model.keys, id, batch, format, first)) {
    if (gone.aborted) return;
    // As bytes, because Node writes a text and what frames it as texts each.
    if (!response.write(Buffer.from(text))) {
      await once(response, "drain", { signal: gone }).catch(() => undefined);
    }
    await turn();
  }
  response.end();
}

function wholeNumber(name: string, text: unknown, preset: number, min: number, max: number): number {
  if (text === undefined) return preset;
  const value = Number(text);
  if (!/^\d{1,10}$/.test(String(text)) || value < min || value > max) {
    throw new ServiceError("bad_query", `${name} must be a whole number from ${min} to ${max}`);
  }
  return value;
}
