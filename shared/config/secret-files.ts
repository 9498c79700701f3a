import { readFileSync } from "node:fs";

export type Environment = Record<string, string | undefined>;

/** What may be in a file instead, whose name is in `<NAME>_FILE`, so that it is in no process's environment. */
const secrets = ["REDIS_URL", "WEBHOOK_SECRET"] as const;

/** The environment with the secrets that are in files, and what is wrong with those. */
export function withSecretFiles(environment: Environment): { env: Environment; problems: string[] } {
  const env = { ...environment };
  const problems: string[] = [];
  for (const name of secrets) {
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
