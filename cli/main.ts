#!/usr/bin/env node
import { basename } from "node:path";
import { auditUsage, runAudit } from "./audit.js";
import { runDemo } from "./demo.js";
import { keysUsage, runKeys } from "./keys.js";
import { makeSigningKey, signModels } from "./models.js";
import { readArguments, UsageError } from "./read-arguments.js";
import { runStart } from "./start.js";
import { runStore, storeUsage } from "./store.js";

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
${keysUsage}${storeUsage}${auditUsage}`;

const say = (line: string) => process.stdout.write(`${line}\n`);

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
  if (command === "start") return runStart(args, process.env);
  if (command === "keys") return runKeys(args, process.env, say);
  if (command === "store") return runStore(args, process.env, say);
  if (command === "audit") return runAudit(args, say);
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
  (fault: Error & { exitCode?: number }) => {
    const isUsage = fault instanceof UsageError;
    process.stderr.write(`${fault.message}\n${isUsage ? `\n${usage}` : ""}`);
    process.exit(isUsage ? 2 : (fault.exitCode ?? 1));
  },
);
