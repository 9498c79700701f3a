import { createHash, randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { withSecretFiles } from "@millrace/shared/config/secret-files.js";
import { createReleasers } from "@millrace/shared/service/releasers.js";
import { findRedis } from "./redis-server.js";
import { type LogLine, spawnService } from "./service-process.js";

const shippedModels = fileURLToPath(new URL("../../models", import.meta.url));

export interface Stack {
  apiUrl: string;
  workerPort: number;
  modelsDir: string;
  /** A key with the scopes predict and admin; null where API_KEYS or API_KEYS_FILE is set. */
  apiKey: string | null;
  redisUrl: string;
  /** The secret of webhooks; null where WEBHOOK_SECRET is set. */
  webhookSecret: string | null;
  /** Rejects when a process ends unexpectedly. */
  broken: Promise<never>;
  /** Ends API, worker and a private Redis, in that order. May be called twice. */
  close(): Promise<void>;
}

/** Finds or starts Redis, then one API and one worker with every model; if a part fails, ends the started ones. */
export async function startStack(
  environment: Record<string, string | undefined>,
  say: (line: string) => void,
): Promise<Stack> {
  const { env, problems } = withSecretFiles(environment);
  if (problems.length > 0) throw new Error(problems.join("\n"));
  // The contents of these files are passed on as variables.
  delete env.REDIS_URL_FILE;
  delete env.WEBHOOK_SECRET_FILE;
  const dataDir = resolve(".data");
  const releasers = createReleasers();
  try {
    const redis = await findRedis({
      redisUrl: env.REDIS_URL,
      path: env.PATH,
      dataDir: join(dataDir, "redis"),
      say,
    });
    releasers.add(() => redis.close());
    const ownKeys = env.API_KEYS !== undefined || env.API_KEYS_FILE !== undefined;
    const key = ownKeys ? null : await makeKey(join(dataDir, "api-keys"));
    const webhookSecret = env.WEBHOOK_SECRET ? null : await keepSecret(join(dataDir, "webhook-secret"));
    const common = { ...env, REDIS_URL: redis.url, ...(webhookSecret !== null && { WEBHOOK_SECRET: webhookSecret }) };
    const modelsDir = env.MODELS_DIR || shippedModels;
    const show = (kind: string) => (line: LogLine) => {
      if (line.level === "error" || line.level === "warn") say(`[${kind}] ${describeLine(line)}`);
    };
    const worker = spawnService("worker", { ...common, MODELS_DIR: modelsDir }, show("worker"));
    releasers.add(() => worker.stop());
    const api = spawnService("api", { ...common, ...(key !== null && { API_KEYS_FILE: key.file }) }, show("api"));
    releasers.add(() => api.stop());
    const [workerPort, port] = await Promise.all([worker.ready, api.ready]);
    const broken = Promise.race([
      api.exited.then((how) => `the API ended (${how})`),
      worker.exited.then((how) => `the worker ended (${how})`),
    ]).then((what) => {
      throw new Error(what);
    });
    broken.catch(() => undefined);
    const host = env.HOST === undefined || env.HOST === "0.0.0.0" ? "127.0.0.1" : env.HOST;
    return {
      apiUrl: `http://${host}:${port}`,
      workerPort,
      modelsDir,
      apiKey: key?.key ?? null,
      redisUrl: redis.url,
      webhookSecret,
      broken,
      close: releasers.close,
    };
  } catch (fault) {
    await releasers.close();
    throw fault;
  }
}

const causeFields = ["model", "version", "reason", "error"];

/** A line of a service's log for people, on one line: its message, and the fields that tell the cause. */
export function describeLine(line: LogLine): string {
  const fields = causeFields.flatMap((name) => {
    const value = line[name];
    const text = (value as { message?: string } | null | undefined)?.message ?? value;
    return text === undefined || text === null ? [] : [`${name}: ${String(text)}`];
  });
  return [String(line.message), ...fields].join(", ").replaceAll(/\s+/g, " ");
}

/** The webhook secret of this installation. Made at the first start and kept, since receivers know it. */
async function keepSecret(file: string): Promise<string> {
  await mkdir(resolve(file, ".."), { recursive: true });
  const secret = `whsec_${randomBytes(24).toString("base64")}`;
  await writeFile(file, secret, { mode: 0o600, flag: "wx" }).catch((fault: NodeJS.ErrnoException) => {
    if (fault.code !== "EEXIST") throw fault;
  });
  return readFile(file, "utf8");
}

/** A new random key; only its hash is kept, so it can be shown only once. */
async function makeKey(file: string): Promise<{ key: string; file: string }> {
  const key = `mr_${randomBytes(24).toString("base64url")}`;
  const hash = createHash("sha256").update(key).digest("hex");
  await mkdir(resolve(file, ".."), { recursive: true });
  await writeFile(file, `local:${hash}:predict+admin\n`, { mode: 0o600 });
  return { key, file };
}

/** A sample of a shipped model, from its manifest. */
export async function sampleOf(
  model: string,
  index: number,
): Promise<{ name: string; input: unknown; expected: unknown }> {
  const manifest = JSON.parse(await readFile(join(shippedModels, model, "model.json"), "utf8"));
  const sample = manifest.samples[index % manifest.samples.length];
  const features = manifest.input.features as (string | { name: string })[];
  const names = features.map((feature) => (typeof feature === "string" ? feature : feature.name));
  return { name: sample.name, input: names.map((name) => sample.input[name]), expected: sample.expected };
}
