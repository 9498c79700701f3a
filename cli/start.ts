import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { withSecretFiles } from "@millrace/shared/config/secret-files.js";
import { demoModels, runDemo } from "./demo.js";
import { type DataLock, lockDataFolder } from "./launch/data-lock.js";
import { endWithNpm } from "./launch/end-with-parent.js";
import { readArguments, UsageError } from "./read-arguments.js";
import { readServedModels, type ServedModels } from "./served-models.js";
import { type Stack, startStack } from "./start-stack.js";
import { chooseTrial, trialCommand } from "./trial.js";

type Environment = Record<string, string | undefined>;

const say = (line: string) => process.stdout.write(`${line}\n`);

/**
 * The command `start`: runs the stack until a signal, or for the demo alone. Resolves to the exit code. `held` is the
 * lock of the data folder where the caller has taken it; without one it is taken here, before anything is started.
 */
export async function runStart(args: readonly string[], env: Environment, held?: DataLock): Promise<number> {
  const { positionals, values } = readArguments(args, { demo: { type: "boolean" } });
  if (positionals.length > 0) throw new UsageError(`unexpected argument ${positionals[0]}`);
  const { demo = false } = values;
  if (demo) checkDemo(env);
  if (held === undefined) endWithNpm(env);
  const dataDir = resolve(".data");
  const lock = held ?? (await lockDataFolder(dataDir));
  const stopped = new Promise<number>((stop) => {
    process.on("SIGINT", () => stop(130));
    process.on("SIGTERM", () => stop(143));
  });
  let isStarted = false;
  // A start is not waited for; what it has started so far ends with this process.
  void stopped.then((code) => !isStarted && process.exit(code));
  say("Starting ...");
  // The demo's own receiver listens on this machine.
  const allowed = [env.WEBHOOK_ALLOW_HOSTS, "127.0.0.1"].filter(Boolean).join(",");
  const stack = await startStack(demo ? { ...env, WEBHOOK_ALLOW_HOSTS: allowed } : env, dataDir, say);
  isStarted = true;
  lock.tellUrl(stack.apiUrl);
  try {
    if (demo) return await Promise.race([demonstrate(stack, env), stopped, stack.broken]);
    await Promise.race([greet(stack), stopped, stack.broken]);
    await Promise.race([stopped, stack.broken]);
  } finally {
    await stack.close();
    await lock.release();
  }
  say("Stopped.");
  return 0;
}

/** Throws where the demo could not run, before anything is started. */
function checkDemo(env: Environment): void {
  if ((env.API_KEYS || env.API_KEYS_FILE) && !env.API_KEY) {
    throw new Error("The demo needs a key: put one of your keys in API_KEY, or unset API_KEYS and API_KEYS_FILE.");
  }
  const { MODELS_DIR: modelsDir } = env;
  const missing = modelsDir ? demoModels.filter((model) => !existsSync(join(modelsDir, model))) : [];
  if (missing.length > 0) {
    throw new Error(
      `The demo runs on the shipped models, and MODELS_DIR lacks ${missing.join(", ")}: unset MODELS_DIR.`,
    );
  }
}

async function demonstrate(stack: Stack, env: Environment): Promise<number> {
  const secret = stack.webhookSecret ?? (withSecretFiles(env).env.WEBHOOK_SECRET as string).split(/\s+/)[0];
  const called = { secret: secret as string, host: "127.0.0.1" };
  const key = stack.apiKey ?? (env.API_KEY as string);
  return (await runDemo(stack.apiUrl, key, called, say)) ? 0 : 1;
}

async function greet(stack: Stack): Promise<void> {
  const models = await readServedModels(stack.redisUrl, stack.keyPrefix);
  const trial = await chooseTrial(models.served, stack);
  say("Millrace is running.");
  say(`  API       ${stack.apiUrl}`);
  say(`  console   ${stack.apiUrl}/`);
  say(`  docs      ${stack.apiUrl}/docs`);
  say(`  queues    ${stack.apiUrl}/admin/queues  (any user name, the key as password)`);
  const workerMetrics = stack.workerPort === 0 ? "" : ` and http://127.0.0.1:${stack.workerPort}/metrics`;
  say(`  metrics   ${stack.apiUrl}/metrics${workerMetrics}`);
  say(
    `  API key   ${stack.apiKey === null ? "yours, of API_KEYS or API_KEYS_FILE" : `${stack.apiKey}  (kept in .data)`}`,
  );
  say(`  webhooks  signed with ${stack.webhookSecret ?? "your WEBHOOK_SECRET"}`);
  tellModels(models);
  say("");
  if (trial !== null) {
    say(stack.apiKey === null ? "Try it, with one of your keys in API_KEY (export API_KEY=...):" : "Try it:");
    say(trialCommand(stack, trial));
    say("");
  }
  say("Ctrl-C stops everything.");
}

function tellModels({ refused, served }: ServedModels): void {
  const names = served.map(({ model }) => model);
  say(`  models    ${names.length === 0 ? "none is served" : names.join(", ")}`);
  if (refused.length === 0) return;
  say("Refused:");
  for (const { model, reason, version } of refused) {
    say(`  ${version === null ? model : `${model}/${version}`}: ${reason.replaceAll(/\s+/g, " ")}`);
  }
}
