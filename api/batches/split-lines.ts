import { BytePieces } from "../byte-pieces.js";

/**
 * A line, as bytes [from, to) of a buffer that is only good for the moment, without its end. The byte at `to` is there,
 * too: whoever looks at it need not ask first, and reading beyond a buffer makes V8 read slowly from then on.
 */
export type OnLine = (bytes: Buffer, from: number, to: number) => void;

export interface LineSplitterOptions {
  longestLineBytes: number;
  /** CSV: a line end within quotes is part of the line. */
  quotes: boolean;
  onLine: OnLine;
  onTooLong(): void;
}

const newline = 0x0a;
const carriageReturn = 0x0d;
const quote = 0x22;
const comma = 0x2c;
const lastEnd = Buffer.from("\n");
const byteOrderMark = [0xef, 0xbb, 0xbf];

/**
 * Splits bytes into lines that end with LF, CRLF or the end of the text; a byte order mark at the beginning is passed
 * over, so are empty lines. Keeps no more than one line.
 */
export class LineSplitter {
  readonly #options: LineSplitterOptions;
  readonly #rest = new BytePieces();
  #tooLong = false;
  /** The first bytes, while they are so few that they may be half of a byte order mark; null from then on. */
  #first: Buffer | null = Buffer.alloc(0);
  #inQuotes = false;
  /** The last byte of the piece before, and whether it ended a quoted field. */
  #last = newline;
  #lastClosed = false;

  constructor(options: LineSplitterOptions) {
    this.#options = options;
  }

  push(bytes: Buffer): void {
    if (this.#first === null) {
      this.#push(bytes, 0);
      return;
    }
    const first = this.#first.length === 0 ? bytes : Buffer.concat([this.#first, bytes]);
    this.#first = first;
    if (first.length < byteOrderMark.length) return;
    this.#first = null;
    this.#push(first, byteOrderMark.every((byte, i) => byte === first[i]) ? byteOrderMark.length : 0);
  }

  /** The text is over: what is left is a line, too. */
  end(): void {
    if (this.#first !== null) this.#push(this.#first, 0);
    this.#first = null;
    this.#line(lastEnd, 0, 0);
  }

  #push(bytes: Buffer, from: number): void {
    if (bytes.length === from) return;
    let start = from;
    let searchFrom = from;
    const { quotes } = this.#options;
    let nextQuote = quotes ? indexOf(bytes, quote, from) : Number.POSITIVE_INFINITY;
    let closedAt = this.#lastClosed ? from - 1 : -2;
    for (;;) {
      const end = bytes.indexOf(newline, searchFrom);
      for (const until = end < 0 ? bytes.length : end; nextQuote < until; ) {
        if (this.#inQuotes) {
          this.#inQuotes = false;
          closedAt = nextQuote;
        } else {
          // One in the midst of a field is a character like any other; the second of two within quotes goes on with them.
          const before = nextQuote > from ? bytes[nextQuote - 1] : this.#last;
          this.#inQuotes = before === comma || before === newline || closedAt === nextQuote - 1;
        }
        nextQuote = indexOf(bytes, quote, nextQuote + 1);
      }
      if (end < 0) break;
      searchFrom = end + 1;
      if (this.#inQuotes) continue;
      this.#line(bytes, start, end);
      start = end + 1;
    }
    this.#last = bytes[bytes.length - 1] as number;
    this.#lastClosed = closedAt === bytes.length - 1;
    this.#keep(bytes, start);
  }

  #keep(bytes: Buffer, start: number): void {
    if (this.#tooLong || start === bytes.length) return;
    if (this.#rest.length + bytes.length - start > this.#options.longestLineBytes) this.#dropLine();
    // A copy, because the buffer may be large and this may be all of it that is still needed.
    else this.#rest.push(bytes.subarray(start));
  }

  #dropLine(): void {
    this.#tooLong = true;
    this.#rest.clear();
  }

  #line(bytes: Buffer, start: number, end: number): void {
    const { longestLineBytes, onLine, onTooLong } = this.#options;
    if (this.#tooLong || this.#rest.length + end - start > longestLineBytes) {
      this.#dropLine();
      this.#tooLong = false;
      onTooLong();
    } else if (this.#rest.length === 0) emit(onLine, bytes, start, end);
    else {
      this.#rest.push(bytes.subarray(start, end + 1));
      const line = this.#rest.take();
      emit(onLine, line, 0, line.length - 1);
    }
  }
}

function emit(onLine: OnLine, bytes: Buffer, from: number, end: number): void {
  const to = end > from && bytes[end - 1] === carriageReturn ? end - 1 : end;
  if (to > from) onLine(bytes, from, to);
}

function indexOf(bytes: Buffer, byte: number, from: number): number {
  const found = bytes.indexOf(byte, from);
  return found < 0 ? Number.POSITIVE_INFINITY : found;
}
