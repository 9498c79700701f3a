/** What a row's numbers may be, by feature; null where there is no bound at all. */
export interface Bounds {
  min: Float64Array;
  max: Float64Array;
}

/** Powers of ten that a double holds exactly; a mantissa below 2^53 times or by one of them is rounded once, so correctly. */
const exactPowers = Float64Array.from({ length: 23 }, (_, i) => Number(`1e${i}`));
const comma = 0x2c;
const space = 0x20;

/**
 * Reads `count` numbers of JSON's grammar from `bytes` [from, to), separated by commas, into `row` from `at`, each as
 * `JSON.parse` and `Math.fround` would have it. Returns where the last one ends, or -1 where something else stands there, a
 * number is out of its bounds, or is beyond a 32-bit float; what that is, a slower reader tells.
 */
export function scanNumbers(
  bytes: Buffer,
  from: number,
  to: number,
  row: Float32Array,
  at: number,
  count: number,
  bounds: Bounds | null,
): number {
  let p = from;
  for (let i = 0; i < count; i++) {
    if (i > 0) {
      while (bytes[p] === space && p < to) p += 1;
      if (bytes[p] !== comma || p >= to) return -1;
      p += 1;
    }
    p = scanNumber(bytes, p, to);
    if (p < 0 || !keepScanned(row, at + i, bounds, i)) return -1;
  }
  return p;
}

/** Puts the number that was read last into `row`; false where it is beyond a 32-bit float or the bounds of feature `i`. */
export function keepScanned(row: Float32Array, at: number, bounds: Bounds | null, i: number): boolean {
  row[at] = scanned;
  const kept = row[at] as number;
  if (kept - kept !== 0) return false;
  return bounds === null || (scanned >= (bounds.min[i] as number) && scanned <= (bounds.max[i] as number));
}

/** The number that `scanNumber` read last; a second return value that costs nothing. */
let scanned = 0;

/** Reads one number of JSON's grammar, after spaces, for `keepScanned`. Returns where it ends, or -1. */
export function scanNumber(bytes: Buffer, from: number, to: number): number {
  let p = from;
  while (bytes[p] === space && p < to) p += 1;
  const start = p;
  let c = bytes[p] as number;
  const negative = c === 0x2d;
  if (negative) c = bytes[++p] as number;
  if (!(c >= 0x30 && c <= 0x39) || p >= to) return -1;
  let mantissa = 0;
  let digits = 0;
  if (c === 0x30) {
    c = bytes[++p] as number;
    if (c >= 0x30 && c <= 0x39 && p < to) return -1;
  } else {
    do {
      mantissa = mantissa * 10 + (c - 0x30);
      digits += 1;
      c = bytes[++p] as number;
    } while (c >= 0x30 && c <= 0x39 && p < to);
  }
  let scale = 0;
  if (c === 0x2e && p < to) {
    const first = ++p;
    c = bytes[p] as number;
    while (c >= 0x30 && c <= 0x39 && p < to) {
      mantissa = mantissa * 10 + (c - 0x30);
      if (mantissa > 0) digits += 1;
      c = bytes[++p] as number;
    }
    if (p === first) return -1;
    scale = first - p;
  }
  if ((c === 0x65 || c === 0x45) && p < to) {
    c = bytes[++p] as number;
    const minus = c === 0x2d;
    if (minus || c === 0x2b) c = bytes[++p] as number;
    const first = p;
    let exponent = 0;
    while (c >= 0x30 && c <= 0x39 && p < to) {
      exponent = exponent * 10 + (c - 0x30);
      c = bytes[++p] as number;
    }
    if (p === first) return -1;
    scale += minus ? -exponent : exponent;
  }
  if (digits <= 15 && scale >= -22 && scale <= 22) {
    const size = scale < 0 ? mantissa / (exactPowers[-scale] as number) : mantissa * (exactPowers[scale] as number);
    scanned = negative ? -size : size;
  } else scanned = Number(bytes.toString("latin1", start, p));
  return p;
}
