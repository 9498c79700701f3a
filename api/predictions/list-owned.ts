import { tagOfId } from "@millrace/shared/redis/ids.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { fitsGlob } from "@millrace/shared/service/glob.js";
import { type Caller, modelsOf } from "../access/authenticate.js";
import type { KnownModel } from "../models/model-directory.js";
import { unknownModel } from "../models/unknown-model.js";
import type { LookUpDependencies } from "./look-up-prediction.js";

export interface ListQuery {
  model: string | null;
  status: string | null;
  limit: number;
  /** The last entry of the page before: newest first, then by id, so that later arrivals change nothing. */
  after: Entry | null;
}

interface Entry {
  createdAt: number;
  id: string;
}

const largestLimit = 100;
const usualLimit = 20;
/** Entries that one request looks at; a filter that leaves few of them ends the page early, not the server. */
const lookedAt = 500;

/** A listing: the index of an owner's ids, and the reader of one, as JSON or null where it has expired. */
export interface Listed {
  index(keys: ModelKeys, owner: string): string;
  read(owner: string, id: string): Promise<string | null>;
}

/** Reads the query of a listing. Throws `bad_query`. */
export function parseListQuery(query: Record<string, unknown>, statuses: readonly string[]): ListQuery {
  const { cursor, limit, model, status } = query;
  const bad = (detail: string) => new ServiceError("bad_query", detail);
  if (status !== undefined && !statuses.includes(String(status))) {
    throw bad(`status must be one of ${statuses.join(", ")}`);
  }
  const count = limit === undefined ? usualLimit : Number(limit);
  if (!/^\d{1,4}$/.test(String(limit ?? "1")) || count < 1 || count > largestLimit) {
    throw bad(`limit must be a whole number from 1 to ${largestLimit}`);
  }
  return {
    model: model === undefined ? null : String(model),
    status: status === undefined ? null : String(status),
    limit: count,
    after: cursor === undefined ? null : decodeCursor(String(cursor)),
  };
}

/** A JSON page of the owner's entries, newest first; its cost does not depend on their number. */
export async function listOwned(
  deps: Pick<LookUpDependencies, "redis" | "directory">,
  listed: Listed,
  caller: Caller,
  query: ListQuery,
): Promise<string> {
  const { owner } = caller;
  const globs = modelsOf(caller, "read");
  const named = query.model === null ? deps.directory.all() : await oneModel(deps, query.model);
  const models = globs === null ? named : named.filter(({ name }) => fitsGlob(name, globs));
  const data: string[] = [];
  let after = query.after;
  let more = true;
  for (let looked = 0; data.length < query.limit && looked < lookedAt && more; ) {
    const wanted = query.status === null ? query.limit - data.length : Math.min(100, lookedAt - looked);
    const page = await nextEntries(deps, listed, models, owner, after, wanted);
    more = page.length === wanted;
    looked += page.length;
    const texts = await Promise.all(page.map(({ id }) => listed.read(owner, id)));
    for (const [i, text] of texts.entries()) {
      if (data.length === query.limit) {
        more = true;
        break;
      }
      after = page[i] as Entry;
      if (text !== null && (query.status === null || statusOf(text) === query.status)) data.push(text);
    }
  }
  const next = more && after !== null ? JSON.stringify(encodeCursor(after)) : "null";
  return `{"data":[${data.join(",")}],"next_cursor":${next}}`;
}

const statusOf = (json: string): string => (JSON.parse(json) as { status: string }).status;

async function oneModel(deps: Pick<LookUpDependencies, "directory">, name: string): Promise<KnownModel[]> {
  const model = await deps.directory.find(name);
  if (model === null) throw unknownModel(name);
  return [model];
}

/** The next entries over all models, merged; each model has an index of its own, in its own slot. */
async function nextEntries(
  deps: Pick<LookUpDependencies, "redis">,
  listed: Listed,
  models: readonly KnownModel[],
  owner: string,
  after: Entry | null,
  count: number,
): Promise<Entry[]> {
  const lists = await Promise.all(models.map((model) => entriesOf(deps, listed, model, owner, after, count)));
  return lists.flat().sort(newestFirst).slice(0, count);
}

async function entriesOf(
  deps: Pick<LookUpDependencies, "redis">,
  listed: Listed,
  { keys }: KnownModel,
  owner: string,
  after: Entry | null,
  count: number,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  const max = after === null ? "+inf" : after.createdAt;
  // Many can have come in one millisecond, so those of the cursor's own are read past, not counted on to be few.
  for (let offset = 0; entries.length < count; offset += count) {
    const found = await deps.redis.zrevrangebyscore(
      listed.index(keys, owner),
      max,
      "-inf",
      "WITHSCORES",
      "LIMIT",
      offset,
      count,
    );
    for (let i = 0; i < found.length; i += 2) {
      const entry = { id: found[i] as string, createdAt: Number(found[i + 1]) };
      if (after === null || newestFirst(after, entry) < 0) entries.push(entry);
    }
    if (found.length < 2 * count) break;
  }
  return entries.slice(0, count);
}

const newestFirst = (a: Entry, b: Entry): number =>
  b.createdAt - a.createdAt || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);

const encodeCursor = ({ createdAt, id }: Entry): string => Buffer.from(`${createdAt}.${id}`).toString("base64url");

function decodeCursor(text: string): Entry {
  const [createdAt = "", id = ""] = Buffer.from(text, "base64url").toString().split(".");
  if (!/^\d{1,16}$/.test(createdAt) || tagOfId(id) === null) {
    throw new ServiceError("bad_query", "cursor must be a next_cursor of this list.");
  }
  return { createdAt: Number(createdAt), id };
}
