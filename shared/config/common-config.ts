import { z } from "zod";
import { parseAllowances, type WebhookAllowances } from "../access/webhook-target.js";
import { parseRedisUrl, type RedisTarget, withPassword } from "../redis/redis-url.js";
import type { Environment } from "./secret-files.js";

/** The settings of every service. */
export interface CommonConfig {
  redis: RedisTarget;
  keyPrefix: string;
  logLevel: string;
  shutdownGraceMs: number;
  resultTtlSeconds: number;
  /** The key that `/metrics` wants; undefined: none. */
  metricsKey: string | undefined;
  durability: "fsync" | "everysec" | "replica" | undefined;
  /** Base URL of an OTLP collector; undefined: no traces. */
  tracesTo: string | undefined;
}

/** Exit code for an unusable configuration: EX_CONFIG of sysexits.h. */
export const exitConfig = 78;

/** One or more settings are missing or wrong; `message` lists every one by its variable's name. */
export class ConfigError extends Error {
  readonly exitCode = exitConfig;

  constructor(problems: readonly string[], options?: ErrorOptions) {
    super(`The configuration is not usable:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`, options);
    this.name = "ConfigError";
  }
}

export const MiB = 1024 * 1024;

/** A whole number from `min` to `max`. */
export const whole = (min: number, max: number, preset: number) =>
  z
    .string()
    .regex(/^\d+$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .pipe(z.number().min(min, `must be at least ${min}`).max(max, `must be at most ${max}`))
    .default(preset);

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

/** The variables of every service. */
export const commonSettings = {
  REDIS_URL: redisUrl,
  REDIS_PASSWORD: z.string().optional(),
  REDIS_KEY_PREFIX: z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,64}$/, "must be 1 to 64 letters, digits, '_', '.' or '-'")
    .default("mr"),
  LOG_LEVEL: z.enum(levels, { error: `must be one of ${levels.join(", ")}` }).default("info"),
  SHUTDOWN_GRACE_SECONDS: whole(0, 3600, 30),
  RESULT_TTL_SECONDS: whole(1, 365 * 86_400, 86_400),
  METRICS_KEY: z
    .string()
    .regex(/^[!-~]{1,256}$/, "must be 1 to 256 printable ASCII characters without spaces, better 32 random ones")
    .optional(),
  OTEL_EXPORTER_OTLP_ENDPOINT: z.url({ protocol: /^https?$/, error: "must be an http or https URL" }).optional(),
  DURABILITY: z.enum(["fsync", "everysec", "replica"], { error: "must be fsync, everysec or replica" }).optional(),
};

/** The secrets of the webhooks, for the API that takes them and the workers that sign. */
export const webhookSecret = z
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

/** Private addresses that webhooks may reach. */
export const allowHosts = z
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

/** Reads variables by their schema; `settings` is null where one is wrong, and `problems` names each. */
export function readSettings<S extends z.ZodType>(
  schema: S,
  env: Environment,
): { settings: z.infer<S> | null; problems: string[] } {
  // An empty variable counts as unset, as compose files and charts expect.
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const parsed = schema.safeParse(given);
  if (parsed.success) return { settings: parsed.data, problems: [] };
  // Entries of a list share its variable, and often the message.
  const problems = parsed.error.issues.map((issue) => `${String(issue.path[0])} ${issue.message}`);
  return { settings: null, problems: [...new Set(problems)] };
}

/** The config of `commonSettings`. */
export function commonConfig(settings: z.infer<z.ZodObject<typeof commonSettings>>): CommonConfig {
  return {
    redis: withPassword(settings.REDIS_URL, settings.REDIS_PASSWORD),
    keyPrefix: settings.REDIS_KEY_PREFIX,
    logLevel: settings.LOG_LEVEL,
    shutdownGraceMs: settings.SHUTDOWN_GRACE_SECONDS * 1000,
    resultTtlSeconds: settings.RESULT_TTL_SECONDS,
    metricsKey: settings.METRICS_KEY,
    durability: settings.DURABILITY,
    tracesTo: settings.OTEL_EXPORTER_OTLP_ENDPOINT,
  };
}
