import type { KeyObject } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { availableParallelism } from "node:os";
import { z } from "zod";
import { type ApiKey, parseApiKeys } from "../access/api-keys.js";
import { parseAllowances, type WebhookAllowances } from "../access/webhook-target.js";
import { parsePublicKey } from "../models/model-signature.js";
import { parseRedisUrl, type RedisTarget } from "../redis/redis-url.js";
import type { QueueLimits } from "../scripts/queue/accept.js";
import { type Environment, withSecretFiles } from "./secret-files.js";

/** The environment is read here and nowhere else. */
export type { Environment } from "./secret-files.js";

/** One or more settings are missing or wrong; `message` lists every one by its variable's name. */
export class ConfigError extends Error {
  constructor(problems: readonly string[]) {
    super(`The configuration is not usable:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`);
    this.name = "ConfigError";
  }
}

/** Exit code of a process that its configuration keeps from starting: EX_CONFIG of sysexits.h. */
export const exitConfig = 78;

const MiB = 1024 * 1024;

const whole = (min: number, max: number, preset: number) =>
  z
    .string()
    .regex(/^\d+$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .pipe(z.number().min(min, `must be at least ${min}`).max(max, `must be at most ${max}`))
    .default(preset);

const part = (preset: number) =>
  z
    .string()
    .regex(/^(0\.\d{1,6}|1(\.0+)?)$/, "must be above 0 and at most 1, such as 0.5")
    .transform(Number)
    .pipe(z.number().positive("must be above 0"))
    .default(preset);

const ownerWeights = z
  .string()
  .transform((text, context) => {
    const weights = new Map<string, number>();
    for (const entry of text.split(",").map((part) => part.trim())) {
      const [, owner, weight] = /^([^:]+):(\d{1,4}(?:\.\d{1,2})?)$/.exec(entry) ?? [];
      if (owner !== undefined && Number(weight) > 0) weights.set(owner, Number(weight));
      else if (entry !== "") context.addIssue({ code: "custom", message: "must be a list such as alice:3,bob:0.5" });
    }
    return weights;
  })
  .default(new Map());
const levels = ["error", "warn", "info", "http", "verbose", "debug", "silly"] as const;

const redisUrl = z
  .string({ error: "is missing: say where Redis is, such as redis://127.0.0.1:6379" })
  .transform((text, context): RedisTarget => {
    try {
      return parseRedisUrl(text);
    } catch (fault) {
      context.addIssue({ code: "custom", message: (fault as Error).message });
      return z.NEVER;
    }
  });

const commonSettings = {
  REDIS_URL: redisUrl,
  REDIS_KEY_PREFIX: z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,64}$/, "must be 1 to 64 letters, digits, '_', '.' or '-'")
    .default("mr"),
  LOG_LEVEL: z.enum(levels, { error: `must be one of ${levels.join(", ")}` }).default("info"),
  SHUTDOWN_GRACE_SECONDS: whole(0, 3600, 30),
  RESULT_TTL_SECONDS: whole(1, 365 * 86_400, 86_400),
  OTEL_EXPORTER_OTLP_ENDPOINT: z.url({ protocol: /^https?$/, error: "must be an http or https URL" }).optional(),
  DURABILITY: z.enum(["fsync", "everysec", "replica"], { error: "must be fsync, everysec or replica" }).optional(),
};

const webhookSecret = z
  .string()
  .transform((text) => text.split(/\s+/).filter(Boolean))
  .pipe(
    z.array(
      z
        .string()
        .regex(
          /^whsec_[A-Za-z0-9+/]{32,128}={0,2}$/,
          "must be whsec_ and 24 to 96 bytes in base64, several separated by spaces",
        ),
    ),
  )
  .optional();

const allowHosts = z
  .string()
  .default("")
  .transform((text, context): WebhookAllowances => {
    try {
      return parseAllowances(text);
    } catch (fault) {
      context.addIssue({ code: "custom", message: (fault as Error).message });
      return z.NEVER;
    }
  });

const limit = z
  .string()
  .regex(/^(off|[1-9]\d{0,9})$/, "must be a whole number from 1, or off")
  .transform((text) => (text === "off" ? null : Number(text)))
  .default(null);

const origins = z
  .string()
  .default("")
  .transform((text) => text.split(/[\s,]+/).filter(Boolean))
  .pipe(z.array(z.string().regex(/^https?:\/\/[^/\s*]+$/, "must be origins such as https://example.com")));

const proxies = z
  .string()
  .default("")
  .transform((text, context): number | string[] => {
    if (/^\d{0,2}$/.test(text)) return Number(text);
    const entries = text.split(/[\s,]+/).filter(Boolean);
    for (const entry of entries) {
      const [address = "", bits] = entry.split("/");
      if (isIP(address) !== 0 && (bits === undefined || /^\d{1,3}$/.test(bits))) continue;
      context.addIssue({ code: "custom", message: "must be a number of proxies, or addresses and ranges" });
      return z.NEVER;
    }
    return entries;
  });

const apiSettings = z.object({
  ...commonSettings,
  PORT: whole(0, 65_535, 3000),
  HOST: z.string().min(1).default("127.0.0.1"),
  API_KEYS: z.string().optional(),
  API_KEYS_FILE: z.string().optional(),
  MAX_BODY_BYTES: whole(1, 1024 * MiB, 16 * MiB),
  MAX_BODY_KEYS: whole(1, 100_000_000, 10_000),
  BODY_TIMEOUT_SECONDS: whole(1, 86_400, 120),
  CORS_ORIGINS: origins,
  TRUST_PROXY: proxies,
  RATE_LIMIT_PER_MINUTE: limit,
  RATE_LIMIT_ROWS_PER_MINUTE: limit,
  FAILED_LOGINS_PER_MINUTE: limit,
  MAX_FILE_BYTES: whole(1, 1024 * MiB, 10_000_000),
  MAX_TENSOR_BYTES: whole(1, 1024 * MiB, 64 * MiB),
  MAX_QUEUE_DEPTH: whole(1, 1_000_000_000, 2_000_000),
  MAX_QUEUE_ROWS: whole(1, 2 ** 50, 100_000_000),
  MAX_QUEUE_BYTES: whole(1, 2 ** 50, 64 * 1024 * MiB),
  MAX_OWNER_PART: part(1),
  OWNER_WEIGHTS: ownerWeights,
  MAX_REDIS_MEMORY_PART: part(0.8),
  MAX_BATCH_ROWS: whole(1, 4_000_000_000, 10_000_000),
  MAX_BATCH_BYTES: whole(1, 2 ** 50, 32 * 1024 * MiB),
  BATCH_UPLOAD_KEEP_SECONDS: whole(1, 86_400, 600),
  SYNC_TIMEOUT_SECONDS: whole(1, 3600, 30),
  WEBHOOK_SECRET: webhookSecret,
  WEBHOOK_ALLOW_HOSTS: allowHosts,
});

const publicKeys = z
  .string()
  .default("")
  .transform((text, context): KeyObject[] => {
    try {
      return text
        .split(/[\s,]+/)
        .filter(Boolean)
        .map(parsePublicKey);
    } catch (fault) {
      context.addIssue({ code: "custom", message: (fault as Error).message });
      return z.NEVER;
    }
  });

const workerSettings = z.object({
  ...commonSettings,
  MODELS_DIR: z.string().min(1).default("./models"),
  MODEL_PUBLIC_KEYS: publicKeys,
  WORKER_MODELS: z.string().default("*"),
  WORKER_ROLES: z
    .string()
    .default("inference,webhooks")
    .transform((text) => text.split(",").map((role) => role.trim()))
    .pipe(z.array(z.enum(["inference", "webhooks"], { error: "must be inference, webhooks or both" })).min(1)),
  WORKER_SLOTS: whole(1, 1024, availableParallelism()),
  SLOT_MAX_RSS_MB: z
    .string()
    .regex(/^[1-9]\d{0,7}$/, "must be a whole number of MiB, or not set")
    .transform(Number)
    .optional(),
  WORKER_PORT: z
    .string()
    .refine((text) => text === "off" || (/^\d{1,5}$/.test(text) && Number(text) <= 65_535), "must be a port or off")
    .optional(),
  WEBHOOK_SECRET: webhookSecret,
  WEBHOOK_ALLOW_HOSTS: allowHosts,
  WEBHOOK_RETRY_SCHEDULE: z
    .string()
    .regex(/^\s*\d+(\.\d+)?\s*(,\s*\d+(\.\d+)?\s*)*$/, "must be a list of seconds, separated by commas")
    .transform((text) => text.split(",").map(Number))
    .pipe(z.array(z.number().max(604_800, "may wait a week at the most")).max(100, "may have 100 entries at the most"))
    .default([5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]),
});

export interface CommonConfig {
  redis: RedisTarget;
  keyPrefix: string;
  logLevel: string;
  shutdownGraceMs: number;
  resultTtlSeconds: number;
  durability: "fsync" | "everysec" | "replica" | undefined;
  /** Base URL of an OTLP collector; undefined: no traces. */
  tracesTo: string | undefined;
}

export interface ApiConfig extends CommonConfig {
  port: number;
  host: string;
  /** From API_KEYS. */
  apiKeys: ApiKey[];
  /** From API_KEYS_FILE, which is watched. */
  apiKeysInFile: ApiKey[];
  apiKeysFile: string | undefined;
  /** Of a key, and refused keys of an address, a minute; null: any number. */
  rateLimits: { requestsPerMinute: number | null; rowsPerMinute: number | null; failuresPerMinute: number | null };
  maxBodyBytes: number;
  /** Members of all objects of a JSON body. */
  maxBodyKeys: number;
  /** How long a body that is no upload may take to arrive. */
  bodyTimeoutMs: number;
  /** Origins whose pages may call the API. */
  corsOrigins: string[];
  /** How many proxies stand in front, or the addresses that are proxies. */
  trustProxy: number | string[];
  /** Largest body of the tensor API that holds binary data. */
  maxTensorBytes: number;
  /** How long a path that answers with the result itself waits for it. */
  syncTimeoutMs: number;
  /** How much may wait for a model, and what part of it one owner may have. */
  queueLimits: QueueLimits;
  /** How much of a model an owner has against others; 1 for those that are not in it. */
  ownerWeights: ReadonlyMap<string, number>;
  /** Of Redis' `maxmemory`, from which new work is refused. */
  maxRedisMemoryPart: number;
  maxBatchRows: number;
  /** Of a batch's body, unpacked. */
  maxBatchBytes: number;
  /** How long what has arrived of a batch is kept while nothing more does. */
  batchUploadKeepMs: number;
  /** The largest file of a multipart body. */
  maxFileBytes: number;
  /** Whether webhooks can be signed, without which none is accepted. */
  webhooksSigned: boolean;
  webhookAllowances: WebhookAllowances;
}

export interface WorkerConfig extends CommonConfig {
  roles: ReadonlySet<"inference" | "webhooks">;
  /** Standard Webhooks secrets, newest first; empty where there are none. */
  webhookSecrets: string[];
  webhookAllowances: WebhookAllowances;
  /** Milliseconds before the second and every further try. */
  webhookRetryDelaysMs: number[];
  modelsDir: string;
  /** Ed25519 keys; where there are any, only versions that one of them has signed are loaded. */
  modelPublicKeys: KeyObject[];
  /** Globs of model names; `*` stands for any characters. */
  modelGlobs: string[];
  slots: number;
  /** Memory above which an inference process is replaced; undefined: none. */
  slotMaxRssBytes: number | undefined;
  /** Where the worker's own endpoints listen: undefined tries 3001 and then any free port. */
  port: number | "off" | undefined;
  /** All that inference processes see of the environment: no address and no secret. */
  slotEnvironment: Environment;
}

/** The API's settings. Throws a ConfigError that lists every problem. */
export function readApiConfig(environment: Environment): ApiConfig {
  const { env, problems: unnamed } = withSecretFiles(environment);
  const { settings, problems: wrong } = read(apiSettings, env);
  const problems = [...unnamed, ...wrong];
  const apiKeys = problemsInto(problems, () => readApiKeys(env.API_KEYS, env.API_KEYS_FILE));
  if (settings === null || problems.length > 0) throw new ConfigError(problems);
  return {
    ...common(settings),
    port: settings.PORT,
    host: settings.HOST,
    apiKeys: apiKeys?.listed ?? [],
    apiKeysInFile: apiKeys?.inFile ?? [],
    apiKeysFile: env.API_KEYS_FILE || undefined,
    rateLimits: {
      requestsPerMinute: settings.RATE_LIMIT_PER_MINUTE,
      rowsPerMinute: settings.RATE_LIMIT_ROWS_PER_MINUTE,
      failuresPerMinute: settings.FAILED_LOGINS_PER_MINUTE,
    },
    maxBodyBytes: settings.MAX_BODY_BYTES,
    maxBodyKeys: settings.MAX_BODY_KEYS,
    bodyTimeoutMs: settings.BODY_TIMEOUT_SECONDS * 1000,
    corsOrigins: settings.CORS_ORIGINS,
    trustProxy: settings.TRUST_PROXY,
    maxTensorBytes: settings.MAX_TENSOR_BYTES,
    syncTimeoutMs: settings.SYNC_TIMEOUT_SECONDS * 1000,
    queueLimits: {
      jobs: settings.MAX_QUEUE_DEPTH,
      rows: settings.MAX_QUEUE_ROWS,
      bytes: settings.MAX_QUEUE_BYTES,
      ownerPart: settings.MAX_OWNER_PART,
    },
    ownerWeights: settings.OWNER_WEIGHTS,
    maxRedisMemoryPart: settings.MAX_REDIS_MEMORY_PART,
    maxBatchRows: settings.MAX_BATCH_ROWS,
    maxBatchBytes: settings.MAX_BATCH_BYTES,
    batchUploadKeepMs: settings.BATCH_UPLOAD_KEEP_SECONDS * 1000,
    maxFileBytes: settings.MAX_FILE_BYTES,
    webhooksSigned: (settings.WEBHOOK_SECRET ?? []).length > 0,
    webhookAllowances: settings.WEBHOOK_ALLOW_HOSTS,
  };
}

/** A worker's settings. Throws a ConfigError that lists every problem. */
export function readWorkerConfig(environment: Environment): WorkerConfig {
  const { env, problems: unnamed } = withSecretFiles(environment);
  const { settings, problems: wrong } = read(workerSettings, env);
  const problems = [...unnamed, ...wrong];
  const modelsDir = env.MODELS_DIR || "./models";
  const inferring = (env.WORKER_ROLES || "inference").includes("inference");
  if (inferring && !statSync(modelsDir, { throwIfNoEntry: false })?.isDirectory()) {
    problems.push("MODELS_DIR is not a folder");
  }
  if (settings === null || problems.length > 0) throw new ConfigError(problems);
  const { WORKER_PORT: port } = settings;
  return {
    ...common(settings),
    roles: new Set(settings.WORKER_ROLES),
    webhookSecrets: settings.WEBHOOK_SECRET ?? [],
    webhookAllowances: settings.WEBHOOK_ALLOW_HOSTS,
    webhookRetryDelaysMs: settings.WEBHOOK_RETRY_SCHEDULE.map((seconds) => seconds * 1000),
    modelsDir: settings.MODELS_DIR,
    modelPublicKeys: settings.MODEL_PUBLIC_KEYS,
    modelGlobs: settings.WORKER_MODELS.split(",")
      .map((glob) => glob.trim())
      .filter(Boolean),
    slots: settings.WORKER_SLOTS,
    slotMaxRssBytes: settings.SLOT_MAX_RSS_MB === undefined ? undefined : settings.SLOT_MAX_RSS_MB * MiB,
    port: port === undefined || port === "off" ? port : Number(port),
    slotEnvironment: {
      ...Object.fromEntries(
        ["PATH", "LD_LIBRARY_PATH", "TZ", "LANG", "NODE_V8_COVERAGE"].flatMap((name) =>
          env[name] === undefined ? [] : [[name, env[name]]],
        ),
      ),
      // ONNX Runtime reports its sessions to its maker otherwise; a model is its owner's business.
      ORT_DISABLE_TELEMETRY: "1",
    },
  };
}

function read<S extends z.ZodType>(schema: S, env: Environment): { settings: z.infer<S> | null; problems: string[] } {
  // A variable that is set to nothing counts as not set, as compose files and charts like to have it.
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const parsed = schema.safeParse(given);
  if (parsed.success) return { settings: parsed.data, problems: [] };
  return { settings: null, problems: parsed.error.issues.map((issue) => `${issue.path.join(".")} ${issue.message}`) };
}

function common(settings: z.infer<typeof apiSettings> | z.infer<typeof workerSettings>): CommonConfig {
  return {
    redis: settings.REDIS_URL,
    keyPrefix: settings.REDIS_KEY_PREFIX,
    logLevel: settings.LOG_LEVEL,
    shutdownGraceMs: settings.SHUTDOWN_GRACE_SECONDS * 1000,
    resultTtlSeconds: settings.RESULT_TTL_SECONDS,
    durability: settings.DURABILITY,
    tracesTo: settings.OTEL_EXPORTER_OTLP_ENDPOINT,
  };
}

function problemsInto<T>(problems: string[], step: () => T): T | undefined {
  try {
    return step();
  } catch (fault) {
    problems.push((fault as Error).message);
    return undefined;
  }
}

function readApiKeys(list: string | undefined, file: string | undefined): { listed: ApiKey[]; inFile: ApiKey[] } {
  const listed = parseApiKeys(list ?? "", "API_KEYS");
  let inFile: ApiKey[] = [];
  if (file) {
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch (fault) {
      throw new Error(`API_KEYS_FILE cannot be read (${(fault as NodeJS.ErrnoException).code})`);
    }
    inFile = parseApiKeys(text, "API_KEYS_FILE");
  }
  if (listed.length + inFile.length === 0) {
    throw new Error("API_KEYS is missing: name:sha256hex[:scope+scope], or API_KEYS_FILE with one a line");
  }
  return { listed, inFile };
}
