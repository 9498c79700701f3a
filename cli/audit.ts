import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { AuditVerifier } from "@millrace/shared/service/verify-audit.js";
import { readArguments, UsageError } from "./read-arguments.js";

export const auditUsage = `  audit verify <file> [<file> ...] [--continued]
                   check the chains of the audit lines in logs of APIs, oldest file first, and name the first line
                   that is broken; --continued: the first file may begin in the middle of chains
`;

/** Checks the audit lines of log files. Resolves to the exit code: 1 for a broken line, which is named. */
export async function runAudit(args: readonly string[], say: (line: string) => void): Promise<number> {
  const { positionals, values } = readArguments(args, { continued: { type: "boolean" } });
  const [action, ...files] = positionals;
  if (action !== "verify" || files.length === 0) throw new UsageError("audit needs verify <file>");
  const verifier = new AuditVerifier({ mayContinue: values.continued === true });
  for (const file of files) {
    const broken = await firstBroken(file, verifier);
    if (broken === null) continue;
    say(`${file}, line ${broken.line}: broken, because ${broken.reason}.`);
    return 1;
  }
  const { chains } = verifier;
  for (const { chain, ended, lastHash, lines } of chains) {
    const end = ended ? "ended" : "no end: its API runs still, was killed, or lines are missing at the end";
    say(`${chain}: line ${lines} is the last one, hash ${lastHash}; ${end}`);
  }
  say(chains.length === 0 ? "There are no audit lines." : `${chains.length} chains hold.`);
  return chains.length === 0 ? 1 : 0;
}

async function firstBroken(file: string, verifier: AuditVerifier): Promise<{ line: number; reason: string } | null> {
  let line = 0;
  try {
    for await (const text of createInterface({ input: createReadStream(file), crlfDelay: Number.POSITIVE_INFINITY })) {
      line += 1;
      const reason = verifier.check(text);
      if (reason !== null) return { line, reason };
    }
  } catch (fault) {
    throw new Error(`Cannot read ${file}: ${(fault as NodeJS.ErrnoException).code ?? (fault as Error).message}`);
  }
  return null;
}
