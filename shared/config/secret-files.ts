import { readFileSync } from "node:fs";

export type Environment = Record<string, string | undefined>;

/**
 * Every setting that is or holds a secret, but API_KEYS, whose file is watched. Each may be in the file that
 * `<NAME>_FILE` names, so that it is in no process's environment.
 */
export const secretSettings = ["REDIS_URL", "REDIS_PASSWORD", "WEBHOOK_SECRET", "METRICS_KEY"] as const;

/**
 * The environment with secrets read from files, and the problems of those files. An empty file counts as none, like an
 * empty variable, as compose files and charts expect.
 */
export function withSecretFiles(environment: Environment): { env: Environment; problems: string[] } {
  const env = { ...environment };
  const problems: string[] = [];
  for (const name of secretSettings) {
    const file = environment[`${name}_FILE`];
    if (!file) continue;
    try {
      const secret = readFileSync(file, "utf8").trim();
      if (secret !== "" && environment[name]) problems.push(`${name}_FILE and ${name} are both set: unset one of them`);
      else if (secret !== "") env[name] = secret;
    } catch (fault) {
      problems.push(`${name}_FILE cannot be read (${(fault as NodeJS.ErrnoException).code})`);
    }
  }
  return { env, problems };
}
