#!/usr/bin/env node
import { basename } from "node:path";
import { withSecretFiles } from "@millrace/shared/config/secret-files.js";
import { runDemo } from "./demo.js";
import { keysUsage, runKeys } from "./keys.js";
import { makeSigningKey, signModels } from "./models.js";
import { readArguments, UsageError } from "./read-arguments.js";
import { type Stack, startStack } from "./start-stack.js";
import { findTrial, servedModels, trialCommand } from "./trial.js";

const called = basename(process.argv[1] ?? "") === "millrace" ? "millrace" : "npm run cli --";
const usage = `usage: ${called} <command>

  start [--demo]   find or start Redis, then run one API and one worker with every model in models/
                   --demo: run predictions on the shipped samples, print the results, and end
  demo <url>       the same on a running API, with the key in API_KEY; with a webhook if WEBHOOK_SECRET is set, and
                   DEMO_HOST to the address of this machine for the workers
  models key <file>
                   make an Ed25519 key to sign models with, and print its public key for MODEL_PUBLIC_KEYS
  models sign <folder> --key <file>
                   sign a version, or every version of a model, so that workers can verify it
${keysUsage}`;

const say = (line: string) => process.stdout.write(`${line}\n`);

async function start(args: readonly string[]): Promise<number> {
  const { positionals, values } = readArguments(args, { demo: { type: "boolean" } });
  if (positionals.length > 0) throw new UsageError(`unexpected argument ${positionals[0]}`);
  const { demo = false } = values;
  // The demo's own receiver listens on this machine.
  const allowed = [process.env.WEBHOOK_ALLOW_HOSTS, "127.0.0.1"].filter(Boolean).join(",");
  say("Starting ...");
  const stack = await startStack(demo ? { ...process.env, WEBHOOK_ALLOW_HOSTS: allowed } : process.env, say);
  const stopped = new Promise<void>((resolve) => {
    process.on("SIGINT", resolve);
    process.on("SIGTERM", resolve);
  });
  try {
    if (demo) {
      const secret = stack.webhookSecret ?? (withSecretFiles(process.env).env.WEBHOOK_SECRET as string).split(/\s+/)[0];
      const called = { secret: secret as string, host: "127.0.0.1" };
      if (stack.apiKey === null) throw new Error("the demo makes its own key: unset API_KEYS and API_KEYS_FILE");
      return (await Promise.race([runDemo(stack.apiUrl, stack.apiKey, called, say), stack.broken])) ? 0 : 1;
    }
    await greet(stack);
    await Promise.race([stopped, stack.broken]);
  } finally {
    await stack.close();
  }
  say("Stopped.");
  return 0;
}

/** The demo on a running API. */
async function demo(args: readonly string[]): Promise<number> {
  const [url, ...more] = readArguments(args, {}).positionals;
  const key = process.env.API_KEY;
  if (url === undefined || more.length > 0 || !URL.canParse(url) || !key) {
    throw new UsageError("demo needs the URL of an API, and its key in API_KEY");
  }
  const { DEMO_HOST: host, WEBHOOK_SECRET: secrets } = process.env;
  const called = host && secrets ? { host, secret: secrets.split(/\s+/)[0] as string } : null;
  if (called === null) say("Skipping the webhook: WEBHOOK_SECRET and DEMO_HOST are not set.");
  return (await runDemo(url.replace(/\/$/, ""), key, called, say)) ? 0 : 1;
}

async function greet(stack: Stack): Promise<void> {
  const served = await servedModels(stack.workerPort);
  const trial = await findTrial(stack.modelsDir, served ?? []);
  say("Millrace is running.");
  say(`  API       ${stack.apiUrl}`);
  say(`  queues    ${stack.apiUrl}/admin/queues  (any user name, the key as password)`);
  const workerMetrics = stack.workerPort === 0 ? "" : ` and http://127.0.0.1:${stack.workerPort}/metrics`;
  say(`  metrics   ${stack.apiUrl}/metrics${workerMetrics}`);
  say(`  API key   ${stack.apiKey ?? "as configured"}`);
  say(`  webhooks  signed with ${stack.webhookSecret ?? "your WEBHOOK_SECRET"}`);
  if (served !== null) say(`  models    ${served.length === 0 ? "none is served" : served.join(", ")}`);
  say("");
  if (trial !== null) {
    say("Try it:");
    say(trialCommand(stack, trial));
    say("");
  }
  say("Ctrl-C stops everything.");
}

async function models(args: readonly string[]): Promise<number> {
  const { positionals, values } = readArguments(args, { key: { type: "string" } });
  const [action, path, ...more] = positionals;
  if (path === undefined || more.length > 0) throw new UsageError("models needs one file or folder");
  if (action === "key" && values.key === undefined) await makeSigningKey(path, say);
  else if (action === "sign" && values.key !== undefined) await signModels(path, values.key, say);
  else throw new UsageError("models needs key <file>, or sign <folder> --key <file>");
  return 0;
}

async function main(): Promise<number> {
  const [command, ...args] = process.argv.slice(2);
  if (command === "start") return start(args);
  if (command === "keys") return runKeys(args, process.env, say);
  if (command === "demo") return demo(args);
  if (command === "models") return models(args);
  if (command !== undefined && command !== "help" && command !== "--help") {
    throw new UsageError(`unknown command ${command}`);
  }
  process.stderr.write(usage);
  return 0;
}

main().then(
  (code) => process.exit(code),
  (fault: Error) => {
    const isUsage = fault instanceof UsageError;
    process.stderr.write(`${fault.message}\n${isUsage ? `\n${usage}` : ""}`);
    process.exit(isUsage ? 2 : 1);
  },
);
