import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { z } from "zod";
import { type ApiKey, parseApiKeys } from "../access/api-keys.js";
import type { WebhookAllowances } from "../access/webhook-target.js";
import type { QueueLimits } from "../scripts/queue/accept.js";
import {
  allowHosts,
  type CommonConfig,
  ConfigError,
  commonConfig,
  commonSettings,
  MiB,
  readSettings,
  webhookSecret,
  whole,
} from "./common-config.js";
import { type Environment, withSecretFiles } from "./secret-files.js";
import { type ApiTiming, apiTiming } from "./timing.js";

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
  /** Whether reads of an owner's own data are put on record. */
  auditReads: boolean;
  maxBodyBytes: number;
  /** Members of all objects of a JSON body. */
  maxBodyKeys: number;
  /** Deadline of a body other than an upload, in ms. */
  bodyTimeoutMs: number;
  /** Origins whose pages may call the API. */
  corsOrigins: string[];
  /** Number of proxies in front, or their addresses. */
  trustProxy: number | string[];
  /** Largest body of the tensor API that holds binary data. */
  maxTensorBytes: number;
  /** Longest wait of paths that answer with the result itself, in ms. */
  syncTimeoutMs: number;
  /** Limits of waiting work of a model, and one owner's part of them. */
  queueLimits: QueueLimits;
  /** Weights of owners in the fair queue; 1 for others. */
  ownerWeights: ReadonlyMap<string, number>;
  /** Part of Redis' `maxmemory` above which new work is refused. */
  maxRedisMemoryPart: number;
  maxBatchRows: number;
  /** Of a batch's body, unpacked. */
  maxBatchBytes: number;
  /** Lifetime of an idle upload, in ms. */
  batchUploadKeepMs: number;
  /** The largest file of a multipart body. */
  maxFileBytes: number;
  /** Whether webhooks can be signed; otherwise none is accepted. */
  webhooksSigned: boolean;
  webhookAllowances: WebhookAllowances;
  timing: ApiTiming;
}

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

/** The variables of an API. */
export const apiSettings = z.object({
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
  AUDIT_READS: z
    .enum(["true", "false"], { error: "must be true or false" })
    .transform((text) => text === "true")
    .default(false),
  MAX_FILE_BYTES: whole(1, 1024 * MiB, 10_000_000),
  MAX_TENSOR_BYTES: whole(1, 1024 * MiB, 64 * MiB),
  MAX_QUEUE_DEPTH: whole(1, 1_000_000_000, 2_000_000),
  MAX_QUEUE_ROWS: whole(1, 2 ** 50, 100_000_000),
  MAX_QUEUE_BYTES: whole(1, 2 ** 50, 64 * 1024 * MiB),
  MAX_OWNER_PART: part(1),
  MAX_FOLLOWERS: whole(1, 100_000, 1000),
  OWNER_WEIGHTS: ownerWeights,
  MAX_REDIS_MEMORY_PART: part(0.8),
  MAX_BATCH_ROWS: whole(1, 4_000_000_000, 10_000_000),
  MAX_BATCH_BYTES: whole(1, 2 ** 50, 32 * 1024 * MiB),
  BATCH_UPLOAD_KEEP_SECONDS: whole(1, 86_400, 600),
  SYNC_TIMEOUT_SECONDS: whole(1, 3600, 30),
  WEBHOOK_SECRET: webhookSecret,
  WEBHOOK_ALLOW_HOSTS: allowHosts,
});

/** The API's settings. Throws a ConfigError that lists every problem. */
export function readApiConfig(environment: Environment): ApiConfig {
  const { env, problems: unread } = withSecretFiles(environment);
  const { settings, problems: wrong } = readSettings(apiSettings, env);
  const problems = [...unread, ...wrong];
  const apiKeys = problemsInto(problems, () => readApiKeys(env.API_KEYS, env.API_KEYS_FILE));
  if (settings === null || problems.length > 0) throw new ConfigError(problems);
  return {
    ...commonConfig(settings),
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
    auditReads: settings.AUDIT_READS,
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
      followers: settings.MAX_FOLLOWERS,
    },
    ownerWeights: settings.OWNER_WEIGHTS,
    maxRedisMemoryPart: settings.MAX_REDIS_MEMORY_PART,
    maxBatchRows: settings.MAX_BATCH_ROWS,
    maxBatchBytes: settings.MAX_BATCH_BYTES,
    batchUploadKeepMs: settings.BATCH_UPLOAD_KEEP_SECONDS * 1000,
    maxFileBytes: settings.MAX_FILE_BYTES,
    webhooksSigned: (settings.WEBHOOK_SECRET ?? []).length > 0,
    webhookAllowances: settings.WEBHOOK_ALLOW_HOSTS,
    timing: apiTiming,
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
