/** An owner's idempotency key, with hashes of its request body. */
export interface Idempotency {
  key: string;
  /** Hash of the body as sent; the only one known to earlier releases. */
  bodyHash: string;
  /** Hash of the body with sorted members; undefined where it is the same. */
  sortedHash?: string | undefined;
}

/** The hashes as one argument of a step. */
export const idempotencyHashes = ({ bodyHash, sortedHash }: Idempotency): string =>
  sortedHash === undefined || sortedHash === bodyHash ? bodyHash : `${bodyHash},${sortedHash}`;
