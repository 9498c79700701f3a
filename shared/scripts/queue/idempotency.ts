/** What was sent under an owner's idempotency key. */
export interface Idempotency {
  key: string;
  /** Of the body as it was sent, which is all that earlier releases know and compare. */
  bodyHash: string;
  /** Of the body in whatever order its members stand; undefined where that is the same. */
  sortedHash?: string | undefined;
}

/** The hashes as one argument of a step. */
export const idempotencyHashes = ({ bodyHash, sortedHash }: Idempotency): string =>
  sortedHash === undefined || sortedHash === bodyHash ? bodyHash : `${bodyHash},${sortedHash}`;
