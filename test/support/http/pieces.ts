import type { Random } from "../random.js";

/** Cuts bytes into pieces at random, so that over many calls every position is a boundary. */
export function pieces(bytes: Buffer, { below }: Random): Buffer[] {
  const cut: Buffer[] = [];
  const longest = 1 + below(40);
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + below(longest);
    // Each piece is a view into a larger buffer with other bytes around it, as chunks of a socket are.
    const padded = Buffer.concat([Buffer.from('7,"]'), bytes.subarray(at, end), Buffer.from('9,"]\n')]);
    cut.push(padded.subarray(4, padded.length - 5));
    at = end;
  }
  return cut;
}
