import { BytePieces } from "../byte-pieces.js";

/** A line, as bytes [from, to) of a buffer that is only good for the moment, without its end; null: it was too long. */
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

/**
 * Splits bytes into lines that end with LF, CRLF or the end of the text; a byte order mark at the beginning is passed
 * over, so are empty lines. Keeps no more than one line.
 */
export class LineSplitter {
  readonly #options: LineSplitterOptions;
  readonly #rest = new BytePieces();
  /** Quotes in what is kept, which is odd within a quoted field. */
  #restQuotes = 0;
  #tooLong = false;
  #begun = false;

  constructor(options: LineSplitterOptions) {
    this.#options = options;
  }

  push(bytes: Buffer): void {
    let start = 0;
    if (!this.#begun && this.#rest.length === 0) {
      if (bytes.length < 3) {
        this.#pushFirst(bytes);
        return;
      }
      if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) start = 3;
      this.#begun = true;
    }
    let searchFrom = start;
    let quotes = this.#restQuotes;
    let nextQuote = this.#options.quotes ? indexOf(bytes, quote, start) : Number.POSITIVE_INFINITY;
    for (;;) {
      const end = bytes.indexOf(newline, searchFrom);
      for (const until = end < 0 ? bytes.length : end; nextQuote < until; quotes++) {
        nextQuote = indexOf(bytes, quote, nextQuote + 1);
      }
      if (end < 0) break;
      searchFrom = end + 1;
      if (quotes % 2 === 1) continue;
      this.#line(bytes, start, end);
      start = end + 1;
      quotes = 0;
    }
    this.#restQuotes = quotes;
    this.#keep(bytes, start);
  }

  /** The text is over: what is left is a line, too. */
  end(): void {
    this.#begun = true;
    this.#line(Buffer.alloc(0), 0, 0);
  }

  /** The first bytes come in pieces so small that a byte order mark may be split. */
  #first = Buffer.alloc(0);

  #pushFirst(bytes: Buffer): void {
    this.#first = Buffer.concat([this.#first, bytes]);
    if (this.#first.length < 3) return;
    const first = this.#first;
    this.#first = Buffer.alloc(0);
    this.push(first);
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
    if (this.#first.length > 0) {
      this.#rest.push(this.#first);
      this.#first = Buffer.alloc(0);
    }
    const { longestLineBytes, onLine, onTooLong } = this.#options;
    if (this.#tooLong || this.#rest.length + end - start > longestLineBytes) {
      this.#dropLine();
      this.#tooLong = false;
      onTooLong();
    } else if (this.#rest.length === 0) emit(onLine, bytes, start, end);
    else {
      this.#rest.push(bytes.subarray(start, end));
      const line = this.#rest.take();
      emit(onLine, line, 0, line.length);
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
