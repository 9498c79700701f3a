import { isUtf8 } from "node:buffer";
import { randomBytes } from "node:crypto";
import { ascii } from "@millrace/shared/predictions/ascii.js";
import { pointerSegment, ServiceError } from "@millrace/shared/service/errors.js";

export interface JsonLimits {
  /** Members of all objects together: what a hostile choice of keys can cost grows with its square. */
  maxBodyKeys: number;
}

const deepest = 64;
/** Objects and arrays together; each takes 40 times the two bytes that it is written with. */
const mostContainers = 1_000_000;

const { quote, colon, openBracket, backslash, closeBracket, openBrace, closeBrace } = ascii;

/**
 * Looks through JSON before it is parsed, and throws `invalid_request` for what is nested too deeply, has too many
 * parts, or names a key of an object twice, of which parsers pick one in silence. What is no JSON at all is left to the
 * parser.
 */
export function checkJson(bytes: Buffer, limits: JsonLimits): void {
  if (!passesQuickCheck(bytes, limits)) checkEveryKey(bytes, limits);
}

const slots = 1 << 15;
const mostHashed = slots / 2;
const longestHashed = 256;
/** Random, so that an attacker cannot choose keys with colliding hashes. */
const seed = randomBytes(4).readInt32LE();
const hashes = new Int32Array(slots);
const epochs = new Int32Array(slots);
let epoch = 0;

/**
 * The quick look: keys are told apart by hashes, in a table that is emptied by counting on. False where only a look at
 * every key can tell, which is hardly ever; throws for what is too deep or too much.
 */
function passesQuickCheck(bytes: Buffer, { maxBodyKeys }: JsonLimits): boolean {
  epoch = (epoch + 1) | 0;
  const open = openHashes;
  let depth = 0;
  let containers = 0;
  let members = 0;
  let hash = 0;
  let hashed = false;
  for (let at = 0; at < bytes.length; at++) {
    const c = bytes[at] as number;
    if (c === quote) {
      hash = seed;
      hashed = true;
      const most = Math.min(bytes.length, at + longestHashed);
      let end = at + 1;
      while (end < most && bytes[end] !== quote && bytes[end] !== backslash) {
        hash = Math.imul(hash ^ (bytes[end] as number), 0x01000193);
        end += 1;
      }
      if (end === bytes.length) return true;
      if (bytes[end] !== quote) {
        hashed = false;
        end = endOfString(bytes, at + 1);
        if (end < 0) return true;
      }
      at = end;
      continue;
    }
    // Nearly all bytes are digits, dots and commas.
    if (c < colon) continue;
    if (c === openBracket || c === openBrace) {
      if (depth === deepest) throw tooDeep();
      if (++containers > mostContainers) throw tooMany();
      // An object is told from all others by its number, an array by having none.
      open[depth++] = c === openBrace ? Math.imul(containers, 0x9e3779b1 | 0) | 1 : 0;
      hashed = false;
    } else if (c === closeBracket || c === closeBrace) {
      if (depth > 0) depth -= 1;
    } else if (c === colon) {
      const own = depth === 0 ? 0 : (open[depth - 1] as number);
      if (own === 0) return true;
      if (++members > maxBodyKeys) throw tooManyKeys(maxBodyKeys);
      if (!hashed || members > mostHashed) return false;
      const mixed = Math.imul(hash ^ own ^ (hash >>> 15), 0x85ebca6b | 0);
      let slot = (mixed ^ (mixed >>> 13)) & (slots - 1);
      while (epochs[slot] === epoch) {
        if (hashes[slot] === mixed) return false;
        slot = (slot + 1) & (slots - 1);
      }
      epochs[slot] = epoch;
      hashes[slot] = mixed;
    }
  }
  return true;
}

const openHashes = new Int32Array(deepest);

/** The thorough look, key by key. */
function checkEveryKey(bytes: Buffer, { maxBodyKeys }: JsonLimits): void {
  let depth = 0;
  let containers = 0;
  let members = 0;
  /** Of each open container: null for an array; for an object its keys so far, the only one bare. */
  const open: (Set<string> | string | null)[] = [];
  let from = 0;
  let to = -1;
  for (let at = 0; at < bytes.length; at++) {
    const c = bytes[at] as number;
    if (c === quote) {
      from = at + 1;
      to = endOfString(bytes, from);
      if (to < 0) return;
      at = to;
      continue;
    }
    // Nearly all bytes are digits, dots and commas.
    if (c < colon) continue;
    if (c === openBracket || c === openBrace) {
      if (depth === deepest) throw tooDeep();
      if (++containers > mostContainers) throw tooMany();
      open[depth++] = c === openBrace ? "" : null;
      to = -1;
    } else if (c === closeBracket || c === closeBrace) {
      if (depth > 0) depth -= 1;
    } else if (c === colon) {
      const keys = depth === 0 ? null : open[depth - 1];
      if (keys === null || to < 0) return;
      if (++members > maxBodyKeys) throw tooManyKeys(maxBodyKeys);
      const key = keyText(bytes, from, to);
      if (key === null) return;
      if (keys instanceof Set) {
        if (keys.has(key)) throw twice(bytes, from, to, depth);
        keys.add(key);
      } else if (keys === "" || keys === undefined) open[depth - 1] = key;
      else if (keys === key) throw twice(bytes, from, to, depth);
      else open[depth - 1] = new Set([keys, key]);
    }
  }
}

/**
 * Parses JSON by `parse`, within the limits. Throws `malformed_json`, also for bytes that are not UTF-8, or
 * `invalid_request`.
 */
export function parseCheckedJson(
  bytes: Buffer,
  limits: JsonLimits,
  parse: (text: string) => unknown = JSON.parse,
): unknown {
  if (!isUtf8(bytes)) throw new ServiceError("malformed_json", "The body is not UTF-8.");
  checkJson(bytes, limits);
  try {
    return parse(bytes.toString());
  } catch (fault) {
    // Only some messages of JSON.parse tell the place; other parsers may have changed the text before.
    const [, position] = (parse === JSON.parse && /at position (\d+)/.exec((fault as Error).message)) || [];
    const place = position === undefined ? "" : `: it has a fault at character ${Number(position) + 1}`;
    throw new ServiceError("malformed_json", `The body is not JSON${place}.`, { cause: fault });
  }
}

/** Where the closing quote of the string is whose first byte is at `from`; -1 where there is none. */
function endOfString(bytes: Buffer, from: number): number {
  const end = bytes.indexOf(quote, from);
  if (end < 0 || bytes[end - 1] !== backslash) return end;
  for (let at = from; at < bytes.length; at++) {
    if (bytes[at] === quote) return at;
    if (bytes[at] === backslash) at += 1;
  }
  return -1;
}

/** The text of a key, told apart from no key by a mark; null for an invalid escape in it. */
function keyText(bytes: Buffer, from: number, to: number): string | null {
  const text = `k${bytes.toString("latin1", from, to)}`;
  if (!text.includes("\\")) return text;
  try {
    return `k${Buffer.from(JSON.parse(`"${bytes.toString("utf8", from, to)}"`) as string).toString("latin1")}`;
  } catch {
    return null;
  }
}

function twice(bytes: Buffer, from: number, to: number, depth: number): ServiceError {
  const key = JSON.parse(`"${bytes.toString("utf8", from, to)}"`) as string;
  return refused(`Duplicate key "${key.slice(0, 64)}".`, depth === 1 ? pointerSegment(key) : "");
}

const tooDeep = () => refused(`The body is nested more than ${deepest} levels deep.`);
const tooMany = () => refused(`The body has more than ${mostContainers} objects and arrays.`);
const tooManyKeys = (most: number) => refused(`The body has more than ${most} object members (MAX_BODY_KEYS).`);

const refused = (detail: string, pointer = "") =>
  new ServiceError("invalid_request", detail, { complaints: [{ detail, pointer }] });
