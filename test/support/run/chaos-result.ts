import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
// Of the beginning, because these runs are long.
const commit = readCommit();

/** Writes what a long form of chaos came to, to `bench/results/<name>.json`, beside the commit that it ran on. */
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
