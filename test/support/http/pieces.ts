import type { Random } from "../random.js";

/** Cuts bytes into pieces at random, so that every place is a boundary sooner or later. */
export function pieces(bytes: Buffer, { below }: Random): Buffer[] {
  const cut: Buffer[] = [];
  const longest = 1 + below(40);
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + below(longest);
    // Each in a buffer of its own with other bytes around it, as the network's are.
    const padded = Buffer.concat([Buffer.from('7,"]'), bytes.subarray(at, end), Buffer.from('9,"]\n')]);
    cut.push(padded.subarray(4, padded.length - 5));
    at = end;
  }
  return cut;
}
