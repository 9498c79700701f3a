import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
// Read at the start, because the commit may change during these long runs.
const commit = readCommit();

/** Writes the figures of a long chaos run to `bench/results/<name>.json`, with the commit that it ran on. */
export function writeChaosResult(name: string, figures: Record<string, unknown>): void {
  const result = { commit, at: new Date().toISOString(), ...figures };
  writeFileSync(`${root}bench/results/${name}.json`, `${JSON.stringify(result, null, 2)}\n`);
}

function readCommit(): string {
  try {
    return execFileSync("git", ["-C", root, "rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  } catch {
    return "unknown";
  }
}
