import { createHash, randomBytes } from "node:crypto";

/**
 * Lines of the audit log are chained: each has the hash of the line before it in the same process, and its own, over
 * all of its members. A line that was changed, taken away, added or moved breaks its chain. A process begins a chain of
 * its own, with the first line `audit begins`, and ends it with `audit ends` where it is stopped and not killed.
 *
 * Who can write the file can also write a chain anew, or cut off its end: the last hash of each chain, kept elsewhere,
 * shows that.
 */
export interface SealedLine {
  /** The chain: when it began, and a random part. */
  chain: string;
  /** From 1 on. */
  chain_line: number;
  /** Hash of the line before; null for the first. */
  previous_hash: string | null;
  hash: string;
}

/** The first line of a chain, and the last one of a process that was stopped. */
export const auditBegins = "audit begins";
export const auditEnds = "audit ends";

/** Seals the audit lines of one process, in the order in which they are written. */
export class AuditChain {
  #id = "";
  #line = 0;
  #last: string | null = null;

  /** A line with its place in the chain, as JSON. Its `timestamp` names the chain if it is the first. */
  seal(text: string): string {
    const given = JSON.parse(text) as { timestamp?: string };
    if (this.#line === 0) this.#id = `${given.timestamp}/${randomBytes(6).toString("hex")}`;
    this.#line += 1;
    const line = { ...given, chain: this.#id, chain_line: this.#line, previous_hash: this.#last };
    this.#last = hashOf(line);
    return JSON.stringify({ ...line, hash: this.#last });
  }
}

/** SHA-256 of a line without its `hash`, in hex; the order of members and the space between them do not count. */
export function hashOf(line: object): string {
  const { hash: _, ...rest } = line as { hash?: unknown };
  return createHash("sha256").update(inOrder(rest)).digest("hex");
}

const inOrder = (value: object): string =>
  JSON.stringify(value, (_, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
