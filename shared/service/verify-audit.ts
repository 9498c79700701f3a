import { auditBegins, auditEnds, hashOf, type SealedLine } from "./audit-chain.js";

/** What is known of one chain. */
export interface ChainState {
  chain: string;
  lines: number;
  lastHash: string;
  /** Its process was stopped; else it runs still, was killed, or lines are missing at the end. */
  ended: boolean;
}

/**
 * Checks the audit lines of a log, line by line. Lines without `audit` are passed over, and those of several processes
 * may be mixed.
 */
export class AuditVerifier {
  readonly #chains = new Map<string, ChainState>();
  readonly #mayContinue: boolean;

  /** `mayContinue`: chains may begin in the middle, because earlier lines are in another file. */
  constructor({ mayContinue = false } = {}) {
    this.#mayContinue = mayContinue;
  }

  /** Checks the next line; the reason why it breaks the log, or null. */
  check(text: string): string | null {
    if (!text.includes('"audit"')) return null;
    const line = parseLine(text);
    if (line === null) return "it is no JSON object";
    if (line.audit !== true) return null;
    const { chain, chain_line: number, hash, previous_hash: previous } = line;
    if (typeof chain !== "string" || typeof number !== "number" || typeof hash !== "string") {
      return "it is an audit line without a place in a chain";
    }
    if (hashOf(line) !== hash) return "its hash does not fit: it was changed";
    const before = this.#chains.get(chain);
    const fault =
      before === undefined ? this.#firstFault(line, number, previous) : placeFault(before, number, previous);
    if (fault !== null) return fault;
    this.#chains.set(chain, { chain, lines: number, lastHash: hash, ended: line.message === auditEnds });
    return null;
  }

  /** The chains so far, in the order in which they began in the log. */
  get chains(): ChainState[] {
    return [...this.#chains.values()];
  }

  #firstFault(line: AuditLine, number: number, previous: unknown): string | null {
    if (number === 1) return previous === null && line.message === auditBegins ? null : "it does not begin a chain";
    if (this.#mayContinue) return null;
    return `it is line ${number} of its chain, and the lines before it are missing`;
  }
}

type AuditLine = Partial<Record<keyof SealedLine, unknown>> & { audit?: unknown; message?: unknown };

function placeFault({ lastHash, lines }: ChainState, number: number, previous: unknown): string | null {
  if (number <= lines) return `it is line ${number} of its chain again, after line ${lines}`;
  if (number > lines + 1) return `it is line ${number} of its chain, and the lines after ${lines} are missing`;
  return previous === lastHash ? null : "it does not fit the line before it in its chain";
}

function parseLine(text: string): AuditLine | null {
  try {
    const line: unknown = JSON.parse(text);
    return typeof line === "object" && line !== null ? line : null;
  } catch {
    return null;
  }
}
