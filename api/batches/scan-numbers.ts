import { ascii } from "@millrace/shared/predictions/ascii.js";
/** Bounds of a row's numbers, by feature. */
export interface Bounds {
  min: Float64Array;
  max: Float64Array;
}

/**
 * Powers of ten that a double holds exactly; a mantissa below 2^53 times or by one of them is rounded once, so
 * correctly.
 */
const exactPowers = Float64Array.from({ length: 23 }, (_, i) => Number(`1e${i}`));
const { space, comma } = ascii;
const minus = 0x2d;
const zero = 0x30;
const dot = 0x2e;

/**
 * The number that was read last, and how far off it may be: more return values, in an array because variables would be
 * allocated anew each time.
 */
const scanned = new Float64Array(2);
/** The same number as bits. */
const scannedBits = new Uint32Array(scanned.buffer);
const lowWord = new Uint8Array(Float64Array.of(1).buffer)[7] === 0x3f ? 0 : 1;

/**
 * Reads `count` numbers of JSON's grammar from `bytes` [from, to), separated by commas, into `row` from `at`, each as
 * `JSON.parse` and `Math.fround` would have it. Returns where the last one ends, or -1 where something else stands
 * there, a number is out of its bounds, or is beyond a 32-bit float; what that is, a slower reader tells. There must be
 * a byte at `to`.
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
      while (bytes[p] === space) p += 1;
      if (bytes[p] !== comma) return -1;
      p += 1;
    }
    // Most numbers are a few digits and no more.
    let digit = (bytes[p] as number) - zero;
    if (digit >= 0 && digit <= 9 && bytes[p + 1] === comma) {
      row[at + i] = digit;
      if (bounds !== null && !(digit >= (bounds.min[i] as number) && digit <= (bounds.max[i] as number))) return -1;
      p += 1;
      continue;
    }
    if (digit >= 1 && digit <= 9) {
      let whole = 0;
      const last = p + 9;
      do {
        whole = (whole * 10 + digit) | 0;
        p += 1;
        digit = (bytes[p] as number) - zero;
      } while (digit >= 0 && digit <= 9 && p < last);
      if (digit === comma - zero) {
        row[at + i] = whole;
        if (bounds !== null && !(whole >= (bounds.min[i] as number) && whole <= (bounds.max[i] as number))) return -1;
        continue;
      }
      p = scanRest(bytes, p, to, whole);
    } else p = scanNumber(bytes, p, to);
    if (p < 0 || !keepScanned(row, at + i, bounds, i)) return -1;
  }
  return p <= to ? p : -1;
}

/**
 * Puts the number that was read last into `row`; false where it is beyond a 32-bit float or the bounds of feature `i`.
 */
export function keepScanned(row: Float32Array, at: number, bounds: Bounds | null, i: number): boolean {
  const value = scanned[0] as number;
  row[at] = value;
  const kept = row[at] as number;
  if (kept - kept !== 0) return false;
  if (bounds === null) return true;
  const slack = scanned[1] as number;
  return value - slack >= (bounds.min[i] as number) && value + slack <= (bounds.max[i] as number);
}

/** Reads one number of JSON's grammar, after spaces, for `keepScanned`. Returns where it ends, or -1. */
export function scanNumber(bytes: Buffer, from: number, to: number): number {
  let p = from;
  while (bytes[p] === space && p < to) p += 1;
  if (bytes[p] === minus) {
    const end = scanUnsigned(bytes, p + 1, to);
    scanned[0] = -(scanned[0] as number);
    return end;
  }
  return scanUnsigned(bytes, p, to);
}

function scanUnsigned(bytes: Buffer, from: number, to: number): number {
  const digit = (bytes[from] as number) - zero;
  if (!(digit >= 0 && digit <= 9) || from >= to) return -1;
  if (digit > 0) return scanRest(bytes, from + 1, to, digit);
  const next = (bytes[from + 1] as number) - zero;
  if (next >= 0 && next <= 9 && from + 1 < to) return -1;
  return scanRest(bytes, from + 1, to, 0);
}

/** Goes on after the first digits of an unsigned number, at most nine, which make `begun`. */
function scanRest(bytes: Buffer, from: number, to: number, begun: number): number {
  let mantissa = begun;
  let p = from;
  let c = p < to ? (bytes[p] as number) : 0;
  if (begun !== 0) {
    while (c >= 0x30 && c <= 0x39) {
      mantissa = mantissa * 10 + (c - zero);
      p += 1;
      c = p < to ? (bytes[p] as number) : 0;
    }
  }
  let scale = 0;
  if (c === dot) {
    const first = p + 1;
    p = first;
    // Nine digits at a time are small integers, which are much faster than others.
    for (let more = true; more; ) {
      const end = Math.min(p + 9, to);
      const begin = p;
      let digits = 0;
      let digit = -1;
      while (p < end) {
        digit = (bytes[p] as number) - zero;
        if (digit < 0 || digit > 9) break;
        digits = (digits * 10 + digit) | 0;
        p += 1;
      }
      mantissa = mantissa * (exactPowers[p - begin] as number) + digits;
      more = p === begin + 9;
    }
    if (p === first) return -1;
    scale = first - p;
    c = p < to ? (bytes[p] as number) : 0;
  }
  if (c === 0x65 || c === 0x45) {
    p += 1;
    c = p < to ? (bytes[p] as number) : 0;
    const negative = c === minus;
    if (negative || c === 0x2b) {
      p += 1;
      c = p < to ? (bytes[p] as number) : 0;
    }
    const first = p;
    let exponent = 0;
    while (c >= 0x30 && c <= 0x39) {
      exponent = exponent * 10 + (c - zero);
      p += 1;
      c = p < to ? (bytes[p] as number) : 0;
    }
    if (p === first) return -1;
    scale += negative ? -exponent : exponent;
  }
  if (scale >= -22 && scale <= 22 && mantissa < mostMantissa) {
    const value = scale < 0 ? mantissa / (exactPowers[-scale] as number) : mantissa * (exactPowers[scale] as number);
    scanned[0] = value;
    if (mantissa <= Number.MAX_SAFE_INTEGER) {
      scanned[1] = 0;
      return p;
    }
    // Rounded at each step, at most a dozen times by half a unit of a double. A 32-bit float has 29 bits less, so that
    // it is the same one unless a border between two of them is that near.
    const fromBorder = ((scannedBits[lowWord] as number) & 0x1fff_ffff) - 0x1000_0000;
    if (value >= leastNormalFloat && (fromBorder > unsureUnits || fromBorder < -unsureUnits)) {
      scanned[1] = value * slackShare;
      return p;
    }
  }
  scanned[0] = Number(bytes.toString("latin1", startOf(bytes, from), p));
  scanned[1] = 0;
  return p;
}

/** Twenty digits and a few more; what is longer is rounded too often. */
const mostMantissa = 1e22;
const leastNormalFloat = 2 ** -126;
const unsureUnits = 16;
/** Share of a number that these units are at the most. */
const slackShare = unsureUnits * 2 ** -52;

/** Where the number begins whose first digits end before `at`. */
function startOf(bytes: Buffer, at: number): number {
  let start = at;
  while (start > 0 && (bytes[start - 1] as number) >= 0x30 && (bytes[start - 1] as number) <= 0x39) start -= 1;
  return start;
}
