import { once } from "node:events";
import { readLabels } from "@millrace/shared/scripts/batches/read-batch.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, Response } from "express";
import { acceptedType, onlyQuery } from "../http/http-preferences.js";
import { sendJson, whenGone } from "../http/request-context.js";
import { takeTurns } from "../http/take-turns.js";
import { csvFormat, ndjsonFormat } from "./format-results.js";
import { type OwnBatchDependencies, ownBatch } from "./own-batch.js";
import { resultPieces } from "./read-results.js";

const usualLimit = 1000;
const largestLimit = 10_000;
/** A page ends early when it holds that much text, because an output may be large. */
const pageBytes = 8 * 1024 * 1024;

/** Sends results as NDJSON or CSV streams, or as JSON pages, from the index that the query names. */
export async function sendResults(
  deps: OwnBatchDependencies,
  id: string,
  request: Request,
  response: Response,
): Promise<void> {
  onlyQuery(request, "from", "limit", "cursor");
  const { owner } = response.locals.reader;
  const { batch, model } = await ownBatch(deps, owner, id);
  const type = acceptedType(request, ["application/x-ndjson", "text/csv", "application/json"]);
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
    throw new ServiceError("bad_query", "limit and cursor are for application/json pages only.");
  }
  if (type === null) {
    throw new ServiceError("not_acceptable", "Results are application/x-ndjson, text/csv or application/json.");
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
    throw new ServiceError("bad_query", `${name} must be a whole number from ${min} to ${max}.`);
  }
  return value;
}
