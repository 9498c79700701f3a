import { execFileSync } from "node:child_process";
import { cpus, release, totalmem } from "node:os";
import { inRoot } from "./paths.js";

/** The machine of a measurement. */
export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  kernel: string;
  node: string;
  redis: string;
}

/** This machine, and the version of a private Redis on it. */
export function readMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    redis: redisVersion(),
  };
}

/** The checked-out commit, with `-dirty` if files differ from it. */
export function readCommit(): string {
  const git = (...args: string[]) => execFileSync("git", ["-C", inRoot(""), ...args], { encoding: "utf8" }).trim();
  try {
    const changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!bench/results");
    return `${git("rev-parse", "--short", "HEAD")}${changed === "" ? "" : "-dirty"}`;
  } catch {
    return "unknown";
  }
}

function redisVersion(): string {
  for (const program of ["redis-server", "valkey-server"]) {
    try {
      const text = execFileSync(program, ["--version"], { encoding: "utf8" });
      return /v=([\d.]+)/.exec(text)?.[1] ?? text.trim();
    } catch {
      // Try the next program.
    }
  }
  return "unknown";
}
