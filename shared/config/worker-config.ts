import type { KeyObject } from "node:crypto";
import { statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { z } from "zod";
import type { WebhookAllowances } from "../access/webhook-target.js";
import { parsePublicKey } from "../models/model-signature.js";
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
import { machineMemoryBytes } from "./machine-memory.js";
import { type Environment, withSecretFiles } from "./secret-files.js";
import { type WorkerTiming, workerTiming } from "./timing.js";

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
  host: string;
  /** The environment of inference processes: no address and no secret. */
  slotEnvironment: Environment;
  timing: WorkerTiming;
}

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

/** What a slot takes with a small model, and something for its runs. */
const leastSlotMiB = 256;

const rolesFault = "must be a comma-separated list of inference and webhooks";

/** The variables of a worker. */
export const workerSettings = z.object({
  ...commonSettings,
  MODELS_DIR: z.string().min(1).default("./models"),
  MODEL_PUBLIC_KEYS: publicKeys,
  WORKER_MODELS: z.string().default("*"),
  WORKER_ROLES: z
    .string()
    .default("inference,webhooks")
    .transform((text) => text.split(",").map((role) => role.trim()))
    .pipe(z.array(z.enum(["inference", "webhooks"], { error: rolesFault })).min(1)),
  WORKER_SLOTS: whole(1, 1024, availableParallelism()),
  SLOT_MAX_RSS_MB: z
    .string()
    .regex(/^[1-9]\d{0,7}$/, "must be a whole number of MiB, or not set")
    .transform(Number)
    .optional(),
  SLOT_MEMORY_LIMIT_MB: z
    .string()
    .regex(/^(off|\d{1,8})$/, "must be a whole number of MiB, or off")
    .refine((text) => text === "off" || Number(text) >= leastSlotMiB, `must be at least ${leastSlotMiB} MiB`)
    .optional(),
  WORKER_PORT: z
    .string()
    .refine((text) => text === "off" || (/^\d{1,5}$/.test(text) && Number(text) <= 65_535), "must be a port or off")
    .optional(),
  WORKER_HOST: z.string().min(1).default("127.0.0.1"),
  WEBHOOK_SECRET: webhookSecret,
  WEBHOOK_ALLOW_HOSTS: allowHosts,
  WEBHOOK_RETRY_SCHEDULE: z
    .string()
    .regex(/^\s*\d+(\.\d+)?\s*(,\s*\d+(\.\d+)?\s*)*$/, "must be a list of seconds, separated by commas")
    .transform((text) => text.split(",").map(Number))
    .pipe(z.array(z.number().max(604_800, "may wait a week at the most")).max(100, "may have 100 entries at the most"))
    .default([5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]),
});

/** A worker's settings. Throws a ConfigError that lists every problem. */
export function readWorkerConfig(environment: Environment): WorkerConfig {
  const { env, problems: unread } = withSecretFiles(environment);
  const { settings, problems: wrong } = readSettings(workerSettings, env);
  const problems = [...unread, ...wrong];
  const modelsDir = env.MODELS_DIR || "./models";
  const inferring = (env.WORKER_ROLES || "inference").includes("inference");
  if (inferring && !statSync(modelsDir, { throwIfNoEntry: false })?.isDirectory()) {
    problems.push("MODELS_DIR is not a folder");
  }
  if (settings === null || problems.length > 0) throw new ConfigError(problems);
  const { WORKER_PORT: port } = settings;
  return {
    ...commonConfig(settings),
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
    host: settings.WORKER_HOST,
    slotEnvironment: {
      ...Object.fromEntries(
        ["PATH", "LD_LIBRARY_PATH", "TZ", "LANG", "NODE_V8_COVERAGE"].flatMap((name) =>
          env[name] === undefined ? [] : [[name, env[name]]],
        ),
      ),
      // ONNX Runtime reports its sessions to its maker otherwise; a model is its owner's business.
      ORT_DISABLE_TELEMETRY: "1",
      ...slotMemoryLimit(settings.SLOT_MEMORY_LIMIT_MB, settings.WORKER_SLOTS),
    },
    timing: workerTiming,
  };
}

/** Part of the memory that the slots may take together; the rest is for the worker and its neighbours. */
const memoryPartOfSlots = 0.8;

/** The limit of one slot's memory in MiB, for its environment: what is set, or its part of what there is. */
function slotMemoryLimit(set: string | undefined, slots: number): { SLOT_MEMORY_LIMIT_MB?: string } {
  if (set === "off") return {};
  const part = Math.floor((machineMemoryBytes() * memoryPartOfSlots) / slots / MiB);
  return { SLOT_MEMORY_LIMIT_MB: set ?? String(Math.max(leastSlotMiB, part)) };
}
