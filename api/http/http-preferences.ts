import type { IncomingMessage } from "node:http";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Request, RequestHandler } from "express";

export const isJson = (request: IncomingMessage): boolean =>
  /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(request.headers["content-type"] ?? "");

/** 415 for a body that does not say that it is JSON. */
export const wantsJson: RequestHandler = (request, _response, next) => {
  if (!isJson(request)) throw new ServiceError("unsupported_media_type", "Send application/json.");
  next();
};

/** 406 for a client that takes no JSON. */
export const acceptsJson: RequestHandler = (request, _response, next) => {
  if (acceptedType(request, ["application/json"]) === null) {
    throw new ServiceError("not_acceptable", "This path answers with application/json.");
  }
  next();
};

/**
 * The type that a client likes best by its `Accept`, or null where it takes none of them: by quality, then by how
 * exactly it is named, then by the order of the header. One pass over the header, however long that is.
 */
export function acceptedType<T extends string>({ headers }: IncomingMessage, offered: readonly T[]): T | null {
  const { accept } = headers;
  if (accept === undefined || accept === "*/*") return offered[0] ?? null;
  const best = new Map<T, Liking>();
  let order = 0;
  for (const range of elementsOf(accept, ",")) {
    order += 1;
    const semicolon = range.indexOf(";");
    const name = (semicolon < 0 ? range : range.slice(0, semicolon)).trim().toLowerCase();
    if (name === "") continue;
    const exactness = name === "*/*" ? 0 : name.endsWith("/*") ? 1 : 2;
    const isFor = (type: T) =>
      exactness === 0 || type === name || (exactness === 1 && type.startsWith(name.slice(0, -1)));
    if (!offered.some(isFor)) continue;
    const quality = semicolon < 0 ? 1 : qualityIn(range.slice(semicolon + 1));
    // A range with other parameters is for another form of the type.
    if (quality === null) continue;
    for (const type of offered.filter(isFor)) {
      const before = best.get(type);
      const isNearer = before === undefined || exactness > before.exactness;
      const isBetter = exactness === before?.exactness && quality > before.quality;
      if (isNearer || isBetter) best.set(type, { exactness, quality, order });
    }
  }
  const liked = [...best].filter(([, { quality }]) => quality > 0);
  liked.sort(([, a], [, b]) => b.quality - a.quality || b.exactness - a.exactness || a.order - b.order);
  return liked[0]?.[0] ?? null;
}

interface Liking {
  exactness: number;
  /** From 0, not at all, to 1. */
  quality: number;
  order: number;
}

/** The `q` of a range's parameters, 1 where there is none; null where there are others before it. */
function qualityIn(parameters: string): number | null {
  for (const parameter of elementsOf(parameters, ";")) {
    const [name = "", value = ""] = parameter.split("=", 2);
    if (name.trim().toLowerCase() === "q") return Number.parseFloat(value) || 0;
    const isUtf8 = name.trim().toLowerCase() === "charset" && unquoted(value.trim()).toLowerCase() === "utf-8";
    if (!isUtf8 && parameter.trim() !== "") return null;
  }
  return 1;
}

/** The content coding that a client likes best by its `Accept-Encoding`; null for none, which it always takes. */
export function acceptedEncoding<T extends string>({ headers }: IncomingMessage, offered: readonly T[]): T | null {
  const header = headers["accept-encoding"];
  if (header === undefined) return null;
  const qualities = new Map<string, { quality: number; place: number }>();
  for (const element of elementsOf(String(header), ",")) {
    const semicolon = element.indexOf(";");
    const coding = (semicolon < 0 ? element : element.slice(0, semicolon)).trim().toLowerCase();
    if (coding === "" || qualities.has(coding)) continue;
    const quality = semicolon < 0 ? 1 : (qualityIn(element.slice(semicolon + 1)) ?? 1);
    qualities.set(coding, { quality, place: qualities.size });
  }
  // What is named comes before what only "*" takes.
  const notNamed = { quality: qualities.get("*")?.quality ?? 0, place: qualities.size };
  const liked = [...offered, null].map((coding) => ({ coding, ...(qualities.get(coding ?? "identity") ?? notNamed) }));
  liked.sort((a, b) => b.quality - a.quality || a.place - b.place);
  const [best] = liked;
  return best === undefined || best.quality === 0 ? null : best.coding;
}

/** The elements of a header between separators, which are none within quotes. */
function* elementsOf(text: string, separator: "," | ";"): Generator<string> {
  const isQuotedSomewhere = text.includes('"');
  for (let begin = 0; begin <= text.length; ) {
    const found = isQuotedSomewhere ? endOfElement(text, begin, separator) : text.indexOf(separator, begin);
    const end = found < 0 ? text.length : found;
    yield text.slice(begin, end);
    begin = end + 1;
  }
}

function endOfElement(text: string, begin: number, separator: string): number {
  let isQuoted = false;
  for (let i = begin; i < text.length; i++) {
    const character = text[i];
    if (isQuoted && character === "\\") i += 1;
    else if (character === '"') isQuoted = !isQuoted;
    else if (character === separator && !isQuoted) return i;
  }
  return -1;
}

/** Seconds to wait from `?wait=` or `Prefer: wait=`, as ms. Throws for what is no whole number from 0 to 60. */
export function waitMsOf(text: unknown, code: "bad_query" | "bad_header"): number {
  if (text === undefined) return 0;
  if (typeof text !== "string" || !/^\d{1,2}$/.test(text) || Number(text) > 60) {
    throw new ServiceError(code, "wait must be a whole number of seconds from 0 to 60.");
  }
  return Number(text) * 1000;
}

/** The `wait` of a `Prefer` header (RFC 7240), other preferences passed over; undefined where there is none. */
export const preferredWait = (request: Request): string | undefined => preferencesOf(request).get("wait") ?? undefined;

/** Whether a `Prefer` header asks not to wait for the end (RFC 7240). */
export const prefersAsync = (request: Request): boolean => preferencesOf(request).has("respond-async");

/**
 * The preferences of a `Prefer` header by name, with the value, or null without one. The first of a name counts;
 * parameters of a preference, after a semicolon, are none, and neither is what stands within quotes.
 */
function preferencesOf({ headers: { prefer } }: Request): ReadonlyMap<string, string | null> {
  const preferences = new Map<string, string | null>();
  for (const element of elementsOf(String(prefer ?? ""), ",")) {
    const [preference = ""] = elementsOf(element, ";");
    const equals = preference.indexOf("=");
    const name = (equals < 0 ? preference : preference.slice(0, equals)).trim().toLowerCase();
    if (!preferences.has(name))
      preferences.set(name, equals < 0 ? null : unquoted(preference.slice(equals + 1).trim()));
  }
  return preferences;
}

const unquoted = (word: string): string =>
  /^"(?:[^"\\]|\\.)*"$/.test(word) ? word.slice(1, -1).replaceAll(/\\(.)/g, "$1") : word;

/** Refuses a query parameter that the path does not know, and a query that is not percent-encoded UTF-8. */
export function onlyQuery(request: Request, ...known: string[]): void {
  if (!isEncoded(request.url)) throw new ServiceError("bad_query", "The query must be UTF-8, percent-encoded.");
  for (const name of Object.keys(request.query)) {
    if (!known.includes(name)) throw new ServiceError("bad_query", `Unknown query parameter "${name.slice(0, 64)}".`);
  }
}

/** Whether a URL says the same to everyone: the query's own parser puts U+FFFD where bytes are no UTF-8. */
function isEncoded(url: string): boolean {
  if (!url.includes("%")) return /^[\x21-\x7e]*$/.test(url);
  try {
    decodeURIComponent(url);
  } catch {
    return false;
  }
  return /^[\x21-\x7e]*$/.test(url);
}
