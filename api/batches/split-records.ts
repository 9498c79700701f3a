import { ascii } from "@millrace/shared/predictions/ascii.js";
import { BytePieces } from "../http/byte-pieces.js";
import { TextStart } from "./split-lines.js";

/**
 * A record of CSV, as bytes [from, to) of a buffer that is only good for the moment, without its end; `line` is the
 * number of the line that it begins on, from 1. The byte at `to` is there, too.
 */
export type OnRecord = (bytes: Buffer, from: number, to: number, line: number) => void;

export interface RecordSplitterOptions {
  longestRecordBytes: number;
  onRecord: OnRecord;
  onTooLong(line: number): void;
}

const { newline, carriageReturn, quote, comma } = ascii;
const lastEnd = Buffer.from("\n");
/** Lines of a record that was given back are read again with pauses in between. */
const rereadAtOnceBytes = 64 * 1024;
const never = Number.POSITIVE_INFINITY;

/**
 * Where in a record: a field begins; within a field without quotes; within quotes; after a quote that may be the
 * closing one; after a closing quote and CR; on a line whose quotes are wrong; on a line that is too long.
 */
type Place = "field" | "plain" | "quoted" | "closing" | "closing line" | "wrong" | "too long";

/** Bytes that are still to be read from `at` on; up to `linesTo`, line by line. */
interface Work {
  bytes: Buffer;
  at: number;
  linesTo: number;
}

/**
 * Splits CSV (RFC 4180) into records, which may hold line ends within quotes. A record of several lines that turns out
 * to be none, because a quote in it is never closed, is closed and followed by something else, or is not closed within
 * the longest record, is given back: each line of it up to the one on which that shows is a record of its own, and
 * that one is read anew. So one stray quote costs the line that it is on. Empty records are told, too. No byte is read
 * more than three times, and no more than one record is kept.
 */
export class RecordSplitter {
  readonly #options: RecordSplitterOptions;
  readonly #start = new TextStart();
  /** The part that has arrived of an unfinished record. */
  readonly #rest = new BytePieces();
  #place: Place = "field";
  /** The line that the record begins on, and the line ends in it so far. */
  #line = 1;
  #lineEnds = 0;
  #work: Work | null = null;
  #ended = false;

  constructor(options: RecordSplitterOptions) {
    this.#options = options;
  }

  /** Reads a piece. False where there is more to do first: call `goOn` until it is true before the next piece. */
  push(bytes: Buffer): boolean {
    const text = this.#start.take(bytes);
    if (text !== null) this.#work = { bytes: text.bytes, at: text.from, linesTo: text.from };
    return this.goOn();
  }

  /** The text is over: what is left is a record, too. False as for `push`. */
  end(): boolean {
    this.#ended = true;
    const bytes = this.#start.end();
    this.#work = { bytes, at: 0, linesTo: 0 };
    return this.goOn();
  }

  /** Goes on with what is to be done; true where that is all. */
  goOn(): boolean {
    let left = rereadAtOnceBytes;
    for (let work = this.#work; work !== null; ) {
      if (work.at < work.linesTo) {
        if (left <= 0) {
          this.#work = work;
          return false;
        }
        const end = work.bytes.indexOf(newline, work.at);
        this.#emit(work.bytes, work.at, end, 0);
        left -= end + 1 - work.at;
        work.at = end + 1;
        continue;
      }
      work = this.#read(work.bytes, work.at);
      if (work === null && this.#ended) work = this.#readEnd();
    }
    this.#work = null;
    return true;
  }

  /** Reads records from `from` on; what is given back is to be read next. */
  #read(bytes: Buffer, from: number): Work | null {
    const { length } = bytes;
    let start = from;
    let p = from;
    let place = this.#place;
    let nextQuote = indexOf(bytes, quote, p);
    let nextEnd = indexOf(bytes, newline, p);
    while (p < length) {
      if (place === "field" || place === "plain") {
        for (; nextQuote < nextEnd; nextQuote = indexOf(bytes, quote, nextQuote + 1)) {
          // One in the midst of a field is a character like any other.
          if (nextQuote === p ? place === "field" : bytes[nextQuote - 1] === comma) break;
        }
        if (nextQuote < nextEnd) {
          p = nextQuote + 1;
          nextQuote = indexOf(bytes, quote, p);
          place = "quoted";
          continue;
        }
        if (nextEnd === never) {
          place = bytes[length - 1] === comma ? "field" : "plain";
          p = length;
          break;
        }
        p = nextEnd;
      } else if (place === "quoted") {
        const until = Math.min(nextQuote, length);
        for (; nextEnd < until; nextEnd = indexOf(bytes, newline, nextEnd + 1)) this.#lineEnds += 1;
        p = until;
        if (p === length) break;
        p += 1;
        nextQuote = indexOf(bytes, quote, p);
        place = "closing";
        continue;
      } else if (place === "closing" && bytes[p] === quote) {
        p += 1;
        nextQuote = indexOf(bytes, quote, p);
        place = "quoted";
        continue;
      } else if (place === "closing" && bytes[p] === comma) {
        p += 1;
        place = "field";
        continue;
      } else if (place === "closing" && bytes[p] === carriageReturn) {
        p += 1;
        place = "closing line";
        continue;
      } else if (place === "too long" || place === "wrong") {
        p = Math.min(nextEnd, length);
        if (p === length) break;
      } else if (bytes[p] !== newline) {
        if (this.#lineEnds > 0) return this.#giveBack(bytes, start, p);
        place = "wrong";
        continue;
      }
      // A line end that ends the record.
      if (this.#lineEnds > 0 && this.#rest.length + p - start > this.#options.longestRecordBytes) {
        return this.#giveBack(bytes, start, p);
      }
      this.#record(bytes, start, p, place === "too long");
      p += 1;
      start = p;
      place = "field";
      nextEnd = indexOf(bytes, newline, p);
      if (nextQuote < p) nextQuote = indexOf(bytes, quote, p);
    }
    this.#place = place;
    if (place === "too long" || start === length) return null;
    if (this.#rest.length + length - start <= this.#options.longestRecordBytes) {
      // A copy, because the buffer may be large and this may be all of it that is still needed.
      this.#rest.push(bytes.subarray(start));
      return null;
    }
    if (this.#lineEnds > 0) return this.#giveBack(bytes, start, length);
    this.#rest.clear();
    this.#place = "too long";
    return null;
  }

  /** The record that the text ends with; what is given back is to be read next. */
  #readEnd(): Work | null {
    if (this.#place === "quoted" && this.#lineEnds > 0) return this.#giveBack(lastEnd, 0, 0);
    if (this.#place === "too long" || this.#rest.length > 0) this.#record(lastEnd, 0, 0, this.#place === "too long");
    this.#place = "field";
    return null;
  }

  /**
   * Takes the record that begins at `start` for lines, of which the one with the byte at `p`, or with the first too
   * many, is read anew.
   */
  #giveBack(bytes: Buffer, start: number, p: number): Work {
    const shownAt = Math.min(this.#rest.length + p - start, this.#options.longestRecordBytes);
    let [whole, begin] = [bytes, start];
    if (this.#rest.length > 0) {
      if (bytes !== lastEnd) this.#rest.push(bytes.subarray(start));
      [whole, begin] = [this.#rest.take(), 0];
    }
    this.#place = "field";
    this.#lineEnds = 0;
    const anew = shownAt === 0 ? 0 : whole.lastIndexOf(newline, begin + shownAt - 1) + 1;
    if (anew > begin) return { bytes: whole, at: begin, linesTo: anew };
    // Its first line alone is too long.
    const end = whole.indexOf(newline, begin);
    this.#options.onTooLong(this.#line);
    this.#line += 1;
    return { bytes: whole, at: end + 1, linesTo: end + 1 };
  }

  #record(bytes: Buffer, start: number, end: number, tooLong: boolean): void {
    const lineEnds = this.#lineEnds;
    this.#lineEnds = 0;
    if (tooLong || this.#rest.length + end - start > this.#options.longestRecordBytes) {
      this.#rest.clear();
      this.#options.onTooLong(this.#line);
      this.#line += 1;
    } else if (this.#rest.length === 0) this.#emit(bytes, start, end, lineEnds);
    else {
      this.#rest.push(bytes.subarray(start, end + 1));
      const record = this.#rest.take();
      this.#emit(record, 0, record.length - 1, lineEnds);
    }
  }

  #emit(bytes: Buffer, from: number, end: number, lineEnds: number): void {
    const to = end > from && bytes[end - 1] === carriageReturn ? end - 1 : end;
    this.#options.onRecord(bytes, from, to, this.#line);
    this.#line += 1 + lineEnds;
  }
}

function indexOf(bytes: Buffer, byte: number, from: number): number {
  const found = bytes.indexOf(byte, from);
  return found < 0 ? never : found;
}
