import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** The repository's root. */
export const root = fileURLToPath(new URL("../../../", import.meta.url));

const cache = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
const folder = process.env.MILLRACE_TOOLS || join(cache, "millrace/tools");
/** The environment in which the tools that `deploy/get-tools` built are found before those that are installed. */
const environment = { ...process.env, PATH: `${join(folder, "bin")}${delimiter}${process.env.PATH}` };

/** Resolves when no `deploy/get-tools` is building, so that what it builds is there; at once where none runs. */
export async function toolsBuilt(): Promise<void> {
  while (isBuilding()) await delay(500);
}

function isBuilding(): boolean {
  try {
    process.kill(Number(readFileSync(join(folder, "building"), "utf8")), 0);
    return true;
  } catch {
    return false;
  }
}

/** Whether a program that only tests need is installed; without it they are skipped. */
export const hasTool = (program: string, ...args: string[]): boolean =>
  spawnSync(program, args, { env: environment }).status === 0;

/** The command of compose 2, by itself or as a part of docker; null without one. */
export function composeCommand(): readonly [string, ...string[]] | null {
  const commands = [["docker-compose"], ["docker", "compose"]] as [string, ...string[]][];
  const found = commands.find(([program, ...first]) => {
    const { stdout } = spawnSync(program, [...first, "version", "--short"], { env: environment, encoding: "utf8" });
    return /^v?([2-9]|\d\d)\./.test(stdout ?? "");
  });
  return found ?? null;
}

/** Runs a program in the repository's root; throws with its output unless it exits with 0. */
export function runTool(
  program: string,
  args: readonly string[],
  input = "",
  env: Record<string, string> = {},
): string {
  const { error, status, stderr, stdout } = spawnSync(program, args, {
    cwd: root,
    input,
    encoding: "utf8",
    env: { ...environment, ...env },
    maxBuffer: 64 * 1024 * 1024,
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${program} ended with ${status}\n${stderr}${stdout}`);
  return stdout;
}
