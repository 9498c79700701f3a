import { readFileSync } from "node:fs";

export type Environment = Record<string, string | undefined>;

/** Settings that may be in the file that `<NAME>_FILE` names, so that they are in no process's environment. */
export const secretSettings = ["REDIS_URL", "WEBHOOK_SECRET"] as const;

/** The environment with secrets read from files, and the problems of those files. */
export function withSecretFiles(environment: Environment): { env: Environment; problems: string[] } {
  const env = { ...environment };
  const problems: string[] = [];
  for (const name of secretSettings) {
    const file = environment[`${name}_FILE`];
    if (!file) continue;
    if (environment[name]) {
      problems.push(`${name}_FILE and ${name} are both set`);
      continue;
    }
    try {
      env[name] = readFileSync(file, "utf8").trim();
    } catch (fault) {
      problems.push(`${name}_FILE cannot be read (${(fault as NodeJS.ErrnoException).code})`);
    }
  }
  return { env, problems };
}
