import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

/** The repository's root. */
export const root = fileURLToPath(new URL("../../../", import.meta.url));

/** Whether a program that only tests need is installed; without it they are skipped. */
export const hasTool = (program: string, ...args: string[]): boolean => spawnSync(program, args).status === 0;

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
    env: { ...process.env, ...env },
    maxBuffer: 64 * 1024 * 1024,
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${program} ended with ${status}\n${stderr}${stdout}`);
  return stdout;
}
