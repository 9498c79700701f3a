import { isUtf8 } from "node:buffer";
import { ascii } from "@millrace/shared/predictions/ascii.js";
import { rawMember } from "@millrace/shared/predictions/raw-member.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import { BytePieces } from "../http/byte-pieces.js";
import { checkJson } from "../http/check-json.js";

export interface EnvelopeOptions {
  /** The largest element of `inputs`, and the largest of all other members together. */
  longestElementBytes: number;
  longestOptionsBytes: number;
  /** `inputs` begins; `before` is what stood before it. */
  onInputs(before: Record<string, unknown>): void;
  /**
   * Asked at an element's beginning: where it ends, if that is before `to` and it could be read on the way, which
   * spares looking for its end first; else -1, and it comes to `onElement`. A few more bytes are there behind `to`.
   */
  readElement?(bytes: Buffer, from: number, to: number): number;
  /** An element of `inputs`, as bytes [from, to) of a buffer that is only good for the moment. */
  onElement(bytes: Buffer, from: number, to: number): void;
  onTooLong(): void;
}

const mostOptionKeys = 1000;
/** More than the digits that a reader takes before it looks where it is. */
const bytesBehind = 16;
const {
  tab,
  newline,
  carriageReturn,
  space,
  quote,
  comma,
  colon,
  openBracket,
  backslash,
  closeBracket,
  openBrace,
  closeBrace,
} = ascii;

const isSpace = (c: number): boolean => c === space || c === newline || c === carriageReturn || c === tab;

/**
 * Reads `{ "inputs": [ … ], …options }` as it arrives: each element of `inputs` is handed on as soon as it is whole,
 * and what stands around them is kept, with an empty array in their place, until it can be parsed as the JSON that it
 * is.
 */
export class EnvelopeSplitter {
  readonly #options: EnvelopeOptions;
  /** Bytes around the elements. */
  readonly #outside = new BytePieces();
  #state: "outside" | "between" | "element" = "outside";
  /** Nesting at this place: of the envelope, or of the element. */
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** Outside, at the depth of the members: the string that was read last, and whether a colon followed it. */
  #string: number[] = [];
  #key = "";
  #afterColon = false;
  #inputsSeen = 0;
  /** Between elements: whether a comma was read since the last one, or the array has just begun. */
  #wantsElement = true;
  #anyElement = false;
  readonly #element = new BytePieces();
  #tooLong = false;

  constructor(options: EnvelopeOptions) {
    this.#options = options;
  }

  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#state === "outside") at = this.#readOutside(bytes, at);
      else if (this.#state === "between") at = this.#readBetween(bytes, at);
      else at = this.#readElement(bytes, at);
    }
  }

  /**
   * The options, once the whole has been read. Throws `malformed_json`, or `invalid_request` for an envelope without
   * inputs.
   */
  end(): Record<string, unknown> {
    if (this.#state !== "outside") throw malformed();
    const options = this.#parsed("");
    if (this.#inputsSeen > 1) throw invalid('duplicate key "inputs"', "/inputs");
    return options;
  }

  /** The text of an option as it was written; undefined where there is none. To be called after `end`. */
  rawOption(name: string): string | undefined {
    return rawMember(this.#outside.peek(), name);
  }

  /** Bytes around the elements so far, but for their array, when `ending` follows. */
  #parsed(ending: string): Record<string, unknown> {
    const bytes = this.#outside.peek();
    if (!isUtf8(bytes)) throw malformed("UTF-8");
    const text = bytes.toString() + ending;
    let envelope: unknown;
    try {
      checkJson(Buffer.from(text), { maxBodyKeys: mostOptionKeys });
      envelope = JSON.parse(text.replace(/^\ufeff/, ""));
    } catch (fault) {
      throw fault instanceof ServiceError ? fault : malformed();
    }
    if (typeof envelope !== "object" || envelope === null || Array.isArray(envelope)) {
      throw invalid("expected an object with inputs", "");
    }
    const { inputs, ...options } = envelope as Record<string, unknown>;
    if (this.#inputsSeen === 0 || !Array.isArray(inputs)) throw invalid("inputs must be an array", "/inputs");
    return options;
  }

  #readOutside(bytes: Buffer, start: number): number {
    let at = start;
    for (; at < bytes.length; at++) {
      const c = bytes[at] as number;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (c === backslash) this.#escaped = true;
        else if (c === quote) {
          this.#inString = false;
          if (this.#depth === 1 && !this.#afterColon) this.#key = keyOf(this.#string);
        }
        if (this.#inString && this.#depth === 1 && !this.#afterColon) this.#string.push(c);
        continue;
      }
      if (c === quote) {
        this.#inString = true;
        this.#string = [];
      } else if (c === colon && this.#depth === 1) this.#afterColon = true;
      else if (c === comma && this.#depth === 1) this.#afterColon = false;
      else if (c === openBracket && this.#depth === 1 && this.#afterColon && this.#key === "inputs") {
        this.#inputsSeen += 1;
        this.#keepOutside(bytes, start, at + 1);
        if (this.#inputsSeen === 1) this.#options.onInputs(this.#parsed("]}"));
        this.#state = "between";
        this.#wantsElement = true;
        this.#anyElement = false;
        return at + 1;
      } else if (c === openBracket || c === openBrace) this.#depth += 1;
      else if (c === closeBracket || c === closeBrace) this.#depth -= 1;
    }
    this.#keepOutside(bytes, start, at);
    return at;
  }

  #keepOutside(bytes: Buffer, from: number, to: number): void {
    if (this.#outside.length + to - from > this.#options.longestOptionsBytes) {
      throw new ServiceError("body_too_large", "The members beside inputs are too large.");
    }
    this.#outside.push(bytes.subarray(from, to));
  }

  #readBetween(bytes: Buffer, start: number): number {
    for (let at = start; at < bytes.length; at++) {
      const c = bytes[at] as number;
      if (isSpace(c)) continue;
      if (c === closeBracket) {
        // A comma must be followed by an element.
        if (this.#wantsElement && this.#anyElement) throw malformed();
        this.#state = "outside";
        this.#depth = 2;
        return at;
      }
      if (c === comma) {
        if (this.#wantsElement) throw malformed();
        this.#wantsElement = true;
        continue;
      }
      if (!this.#wantsElement) throw malformed();
      this.#wantsElement = false;
      this.#anyElement = true;
      const to = Math.min(bytes.length - bytesBehind, at + this.#options.longestElementBytes);
      const end = at < to ? (this.#options.readElement?.(bytes, at, to) ?? -1) : -1;
      if (end >= 0) return end;
      this.#state = "element";
      this.#depth = 0;
      return at;
    }
    return bytes.length;
  }

  #readElement(bytes: Buffer, start: number): number {
    let depth = this.#depth;
    for (let at = start; at < bytes.length; at++) {
      const c = bytes[at] as number;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (c === backslash) this.#escaped = true;
        else if (c === quote) this.#inString = false;
        continue;
      }
      // Nearly all bytes are digits, dots and commas within a row.
      if (c === comma) {
        if (depth === 0) return this.#endElement(bytes, start, at);
      } else if (c === quote) this.#inString = true;
      else if (c === openBracket || c === openBrace) depth += 1;
      else if (c === closeBracket || c === closeBrace) {
        if (depth === 0) return this.#endElement(bytes, start, at);
        depth -= 1;
      }
    }
    this.#depth = depth;
    this.#keepElement(bytes, start, bytes.length);
    return bytes.length;
  }

  #keepElement(bytes: Buffer, from: number, to: number): void {
    if (this.#tooLong) return;
    if (this.#element.length + to - from > this.#options.longestElementBytes) {
      this.#tooLong = true;
      this.#element.clear();
    } else this.#element.push(bytes.subarray(from, to));
  }

  #endElement(bytes: Buffer, from: number, to: number): number {
    this.#state = "between";
    if (!this.#tooLong && this.#element.length === 0 && to - from <= this.#options.longestElementBytes) {
      this.#options.onElement(bytes, from, trimmed(bytes, from, to));
      return to;
    }
    this.#keepElement(bytes, from, to);
    const element = this.#element.take();
    if (this.#tooLong) {
      this.#tooLong = false;
      this.#options.onTooLong();
    } else this.#options.onElement(element, 0, trimmed(element, 0, element.length));
    return to;
  }
}

/** The key that stands between quotes as these bytes, escapes and all. */
function keyOf(bytes: readonly number[]): string {
  try {
    return JSON.parse(`"${Buffer.from(bytes).toString()}"`) as string;
  } catch {
    throw malformed();
  }
}

function trimmed(bytes: Buffer, from: number, to: number): number {
  let end = to;
  while (end > from && isSpace(bytes[end - 1] as number)) end -= 1;
  return end;
}

const malformed = (what: "JSON" | "UTF-8" = "JSON") => new ServiceError("malformed_json", `The body is not ${what}.`);

const invalid = (detail: string, pointer: string) =>
  new ServiceError("invalid_request", detail, { complaints: [{ detail, pointer }] });
