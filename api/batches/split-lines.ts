import { ascii } from "@millrace/shared/predictions/ascii.js";
import { BytePieces } from "../http/byte-pieces.js";

/**
 * A line, as bytes [from, to) of a buffer that is only good for the moment, without its end. The byte at `to` is there,
 * too: a reader need not check the bound, and reading beyond a buffer makes V8 read slowly from then on.
 */
export type OnLine = (bytes: Buffer, from: number, to: number) => void;

export interface LineSplitterOptions {
  longestLineBytes: number;
  onLine: OnLine;
  onTooLong(): void;
}

const { newline, carriageReturn } = ascii;
const lastEnd = Buffer.from("\n");

/**
 * Splits bytes into lines that end with LF, CRLF or the end of the text; a byte order mark at the beginning is passed
 * over, so are empty lines. Keeps no more than one line.
 */
export class LineSplitter {
  readonly #options: LineSplitterOptions;
  readonly #start = new TextStart();
  readonly #rest = new BytePieces();
  #tooLong = false;

  constructor(options: LineSplitterOptions) {
    this.#options = options;
  }

  push(bytes: Buffer): void {
    const text = this.#start.take(bytes);
    if (text !== null) this.#push(text.bytes, text.from);
  }

  /** The text is over: what is left is a line, too. */
  end(): void {
    this.#push(this.#start.end(), 0);
    this.#line(lastEnd, 0, 0);
  }

  #push(bytes: Buffer, from: number): void {
    let start = from;
    for (let end = bytes.indexOf(newline, from); end >= 0; end = bytes.indexOf(newline, start)) {
      this.#line(bytes, start, end);
      start = end + 1;
    }
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

const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf]);

/** The beginning of a text that comes in pieces, where a byte order mark is passed over. */
export class TextStart {
  /** The first bytes, while they are so few that they may be half of a byte order mark; null from then on. */
  #first: Buffer | null = Buffer.alloc(0);

  /** The piece from where the text begins in it; null while that is not known yet. */
  take(bytes: Buffer): { bytes: Buffer; from: number } | null {
    if (this.#first === null) return { bytes, from: 0 };
    const first = this.#first.length === 0 ? bytes : Buffer.concat([this.#first, bytes]);
    this.#first = first;
    if (first.length < byteOrderMark.length) return null;
    this.#first = null;
    return { bytes: first, from: first.subarray(0, byteOrderMark.length).equals(byteOrderMark) ? 3 : 0 };
  }

  /** The text is over: the few bytes that it may have been. */
  end(): Buffer {
    const few = this.#first ?? Buffer.alloc(0);
    this.#first = null;
    return few;
  }
}
