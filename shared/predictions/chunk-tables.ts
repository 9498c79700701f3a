import type { LineFault } from "./line-faults.js";

/**
 * The parts of a chunk between its head and its body, as short as what they tell: each different fault once, the lines
 * that have it as ranges, and origins as ranges. A caller may send a line of two bytes, and a million of them.
 */

const blockBytes = 1024;

/** Writes unsigned integers of up to 53 bits, seven bits a byte, the lowest first; the eighth bit tells of more. */
class VarintWriter {
  readonly #parts: Buffer[] = [];
  #block = Buffer.allocUnsafe(blockBytes);
  #at = 0;

  number(value: number): void {
    if (this.#at + 8 > this.#block.length) this.#flush();
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#block[this.#at++] = (rest % 0x80) | 0x80;
    this.#block[this.#at++] = rest;
  }

  /** A length and so many bytes. */
  text(text: string): void {
    const bytes = Buffer.from(text);
    this.number(bytes.length);
    this.#flush();
    this.#parts.push(bytes);
  }

  end(): Buffer {
    this.#flush();
    return Buffer.concat(this.#parts);
  }

  #flush(): void {
    this.#parts.push(this.#block.subarray(0, this.#at));
    this.#block = Buffer.allocUnsafe(blockBytes);
    this.#at = 0;
  }
}

class VarintReader {
  readonly #bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  number(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.#bytes.readUInt8(this.at++);
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  text(): string {
    const end = this.number() + this.at;
    if (end > this.#bytes.length) throw new RangeError("chunk is cut off");
    const text = this.#bytes.toString("utf8", this.at, end);
    this.at = end;
    return text;
  }
}

/** Signed as unsigned: 0, -1, 1, -2, 2 … become 0, 1, 2, 3, 4 … */
const zigzag = (value: number): number => (value < 0 ? -2 * value - 1 : 2 * value);
const unzigzag = (value: number): number => (value % 2 === 1 ? -(value + 1) / 2 : value / 2);

/**
 * Layout, all numbers as varints: the number of different faults; of each its code and its detail, as length and UTF-8;
 * for each range of lines the lines since the last range, its lines and its fault; with origins, the number of their
 * ranges, and of each the distance from the end of the last (zigzag) and its lines.
 */
export function encodeTables(faults: readonly LineFault[], origins: Uint32Array | null): Buffer {
  const out = new VarintWriter();
  const texts = new Map<string, number>();
  const numbers = faults.map(({ code, detail }) => {
    const key = `${code}\0${detail}`;
    const known = texts.get(key) ?? texts.size;
    texts.set(key, known);
    return known;
  });
  out.number(texts.size);
  for (const key of texts.keys()) {
    const split = key.indexOf("\0");
    out.text(key.slice(0, split));
    out.text(key.slice(split + 1));
  }
  let end = 0;
  for (const [i, { count, offset }] of faults.entries()) {
    out.number(offset - end);
    out.number(count);
    out.number(numbers[i] as number);
    end = offset + count;
  }
  if (origins !== null) writeOrigins(out, origins);
  return out.end();
}

function writeOrigins(out: VarintWriter, origins: Uint32Array): void {
  const starts: number[] = [];
  for (let i = 0; i < origins.length; i++) {
    if (i === 0 || origins[i] !== (origins[i - 1] as number) + 1) starts.push(i);
  }
  out.number(starts.length);
  let end = 0;
  for (const [r, start] of starts.entries()) {
    const count = (starts[r + 1] ?? origins.length) - start;
    const first = origins[start] as number;
    out.number(zigzag(first - end));
    out.number(count);
    end = first + count;
  }
}

/** What `encodeTables` wrote at `at`, and where the body begins. Throws a RangeError where it is cut off. */
export function decodeTables(
  bytes: Buffer,
  at: number,
  counts: { ranges: number; lines: number; hasOrigins: boolean },
): { faults: LineFault[]; origins: Uint32Array | null; end: number } {
  const reader = new VarintReader(bytes, at);
  const texts: { code: string; detail: string }[] = [];
  for (let left = reader.number(); left > 0; left--) texts.push({ code: reader.text(), detail: reader.text() });
  const faults: LineFault[] = [];
  let end = 0;
  for (let left = counts.ranges; left > 0; left--) {
    const offset = end + reader.number();
    const count = reader.number();
    const text = texts[reader.number()];
    if (text === undefined) throw new RangeError("chunk names a fault that it does not have");
    faults.push({ offset, count, ...text });
    end = offset + count;
  }
  const origins = counts.hasOrigins ? readOrigins(reader, counts.lines) : null;
  return { faults, origins, end: reader.at };
}

function readOrigins(reader: VarintReader, lines: number): Uint32Array {
  const origins = new Uint32Array(lines);
  let [line, end] = [0, 0];
  for (let left = reader.number(); left > 0; left--) {
    const first = end + unzigzag(reader.number());
    const count = reader.number();
    for (let i = 0; i < count; i++) origins[line++] = first + i;
    end = first + count;
  }
  return origins;
}
