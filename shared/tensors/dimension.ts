/**
 * Whether a declared dimension is of any length, whatever the others are: ONNX writes none, and exporters write `?` or
 * `-1`, of which no two need be equal. Any other text is a symbol, which stands for one length wherever it is.
 */
export const isFreeDimension = (declared: number | string): boolean =>
  typeof declared === "number" ? declared < 0 : declared === "" || declared === "?" || declared === "-1";

/** The length that a dimension must have, once `symbols` holds those that are known; undefined where any will do. */
export function wantedLength(declared: number | string, symbols: ReadonlyMap<string, number>): number | undefined {
  if (isFreeDimension(declared)) return undefined;
  return typeof declared === "number" ? declared : symbols.get(declared);
}
