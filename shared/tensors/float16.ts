const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** IEEE 754 binary16 bits of a number, rounded to nearest, ties to even; beyond 65504 it becomes infinite. */
export function toFloat16Bits(value: number): number {
  float[0] = value;
  const bits = word[0] as number;
  const sign = (bits >>> 16) & 0x8000;
  const exponent = (bits >>> 23) & 0xff;
  const fraction = bits & 0x7fffff;
  if (exponent === 0xff) return sign | 0x7c00 | (fraction === 0 ? 0 : 0x200);
  const unbiased = exponent - 127;
  if (unbiased > 15) return sign | 0x7c00;
  if (unbiased < -25) return sign;
  const subnormal = unbiased < -14;
  const significand = fraction | 0x800000;
  const shift = subnormal ? -unbiased - 14 + 13 : 13;
  let half = subnormal ? significand >>> shift : ((unbiased + 15) << 10) | (fraction >>> 13);
  const rest = significand & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  if (rest > middle || (rest === middle && (half & 1) === 1)) half += 1;
  return sign | half;
}

/** The number that binary16 bits stand for. */
export function fromFloat16Bits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
