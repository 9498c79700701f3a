import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { spawnService } from "@millrace/cli/service-process.js";
import { apiSettings, readApiConfig } from "@millrace/shared/config/api-config.js";
import { ConfigError } from "@millrace/shared/config/common-config.js";
import { secretSettings } from "@millrace/shared/config/secret-files.js";
import { readWorkerConfig, workerSettings } from "@millrace/shared/config/worker-config.js";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { programs } from "../support/stack/stack.js";

const redis = { REDIS_URL: "redis://127.0.0.1:6379" };
const hash = "a".repeat(64);
/** 24 bytes in base64, in the form of Standard Webhooks. */
const secret = `whsec_${"c2Vj".repeat(8)}`;
const complete = { ...redis, API_KEYS: `alice:${hash}` };

/** The problems of a refused configuration, one a line. */
function problemsOf(read: () => unknown): string[] {
  try {
    read();
  } catch (fault) {
    expect(fault).toBeInstanceOf(ConfigError);
    return (fault as Error).message.split("\n").slice(1);
  }
  throw new Error("the configuration was accepted");
}

/** The variables at the beginning of the lines. */
const variablesIn = (lines: readonly string[]): string[] =>
  lines.map((line) => /[A-Z_]{4,}/.exec(line)?.[0] ?? "").sort();

describe("settings", () => {
  test("an API with only Redis and keys set has the documented defaults", () => {
    const config = readApiConfig({ ...complete, PORT: "", MAX_BODY_BYTES: "" });
    expect(config).toMatchObject({
      port: 3000,
      host: "127.0.0.1",
      maxBodyBytes: 16 * 1024 * 1024,
      queueLimits: { jobs: 2_000_000, rows: 100_000_000, bytes: 64 * 2 ** 30, ownerPart: 1, followers: 1000 },
      resultTtlSeconds: 86_400,
      shutdownGraceMs: 30_000,
      logLevel: "info",
    });
    expect(config.apiKeys).toEqual([{ owner: "alice", sha256Hex: hash, scopes: new Set(["predict", "read"]) }]);
  });

  test("a worker with only Redis set has the documented defaults, and its slots see no secret", () => {
    const config = readWorkerConfig({ ...complete, PATH: "/bin", HOME: "/root", WEBHOOK_SECRET: secret });
    expect(config).toMatchObject({
      modelsDir: "./models",
      modelGlobs: ["*"],
      slots: availableParallelism(),
      port: undefined,
      shutdownGraceMs: 30_000,
      roles: new Set(["inference", "webhooks"]),
      webhookSecrets: [secret],
    });
    expect(config.slotEnvironment).toEqual({
      ...{ PATH: "/bin", ORT_DISABLE_TELEMETRY: "1" },
      SLOT_MEMORY_LIMIT_MB: expect.stringMatching(/^[1-9]\d+$/),
    });
    const memory = { WORKER_SLOTS: "2", SLOT_MEMORY_LIMIT_MB: "1000" };
    expect(readWorkerConfig({ ...redis, ...memory }).slotEnvironment.SLOT_MEMORY_LIMIT_MB).toBe("1000");
    const unlimited = readWorkerConfig({ ...redis, SLOT_MEMORY_LIMIT_MB: "off" }).slotEnvironment;
    expect(unlimited).not.toHaveProperty("SLOT_MEMORY_LIMIT_MB");
    const lists = readWorkerConfig({ ...redis, WORKER_MODELS: "a-*, b", WORKER_PORT: "off", WORKER_SLOTS: "3" });
    expect(lists).toMatchObject({ modelGlobs: ["a-*", "b"], port: "off", slots: 3 });
  });

  test("every invalid or missing setting of an API is named at once", () => {
    const env = {
      PORT: "70000",
      LOG_LEVEL: "loud",
      MAX_BODY_BYTES: "16MB",
      MAX_QUEUE_DEPTH: "0",
      RESULT_TTL_SECONDS: "-1",
      SHUTDOWN_GRACE_SECONDS: "1.5",
      DURABILITY: "maybe",
      REDIS_KEY_PREFIX: "a:b",
      WEBHOOK_SECRET: "whsec_x",
      WEBHOOK_ALLOW_HOSTS: "http://a",
    };
    const lines = problemsOf(() => readApiConfig(env));
    expect(variablesIn(lines)).toEqual([...Object.keys(env), "REDIS_URL", "API_KEYS"].sort());
  });

  test("every invalid setting of a worker is named at once", () => {
    const env = {
      REDIS_URL: "localhost:6379",
      WORKER_SLOTS: "0",
      WORKER_PORT: "99999",
      WORKER_ROLES: "cook",
      WEBHOOK_SECRET: `${secret} whsec_x`,
      WEBHOOK_ALLOW_HOSTS: "http://a",
      WEBHOOK_RETRY_SCHEDULE: "5,soon",
    };
    expect(variablesIn(problemsOf(() => readWorkerConfig(env)))).toEqual(Object.keys(env).sort());
    const roles = problemsOf(() => readWorkerConfig({ ...redis, WORKER_ROLES: "both,cook" }));
    expect(roles).toEqual(["  - WORKER_ROLES must be a comma-separated list of inference and webhooks"]);
  });

  test("keys are read from a list and a file; an invalid entry is named by its position, not its content", async () => {
    const dir = await mkdtemp(join(tmpdir(), "millrace-keys-"));
    const file = join(dir, "keys");
    await writeFile(file, `# who may do what\nbob:${"B".repeat(64)}:read+admin\n\ncarol:${hash}\n`);
    const { apiKeys: listed, apiKeysInFile } = readApiConfig({ ...complete, API_KEYS_FILE: file });
    const apiKeys = [...listed, ...apiKeysInFile];
    expect(apiKeys.map(({ owner, scopes }) => [owner, [...scopes].sort()])).toEqual([
      ["alice", ["predict", "read"]],
      ["bob", ["admin", "inspect", "operate", "read"]],
      ["carol", ["predict", "read"]],
    ]);
    expect(apiKeys[1]?.sha256Hex).toBe("b".repeat(64));
    const bad = `alice:my-secret-key,:${hash},bob:${hash}:root,carol:${hash}:read:x`;
    const text = problemsOf(() => readApiConfig({ ...redis, API_KEYS: bad })).join("\n");
    for (const entry of [1, 2, 3, 4]) expect(text).toContain(`API_KEYS entry ${entry}`);
    expect(text).not.toContain("my-secret-key");
    // A key pasted alone looks like an owner's name.
    const pasted = problemsOf(() => readApiConfig({ ...redis, API_KEYS: "mr_plaintext" }));
    expect(pasted).toEqual(["  - API_KEYS entry 1: must be name:sha256hex[:scope+scope]"]);
    const missing = problemsOf(() => readApiConfig({ ...redis, API_KEYS_FILE: join(dir, "nothing") }));
    expect(variablesIn(missing)).toEqual(["API_KEYS_FILE"]);
    await rm(dir, { recursive: true });
  });
});

describe("secrets and limits", () => {
  test("secrets may be in files, for both services; duplicate and unreadable ones are named", async () => {
    const dir = await mkdtemp(join(tmpdir(), "millrace-secrets-"));
    const file = async (name: string, text: string) => {
      await writeFile(join(dir, name), text);
      return join(dir, name);
    };
    const env = {
      REDIS_URL_FILE: await file("redis", "redis://:hidden@10.1.2.3:7000\n"),
      WEBHOOK_SECRET_FILE: await file("webhook", `${secret}\n`),
    };
    expect(readWorkerConfig(env)).toMatchObject({
      redis: { hosts: [{ host: "10.1.2.3", port: 7000 }], password: "hidden" },
      webhookSecrets: [secret],
    });
    expect(readApiConfig({ ...env, API_KEYS: complete.API_KEYS }).webhooksSigned).toBe(true);
    const both = problemsOf(() => readApiConfig({ ...complete, ...env }));
    expect(variablesIn(both)).toEqual(["REDIS_URL_FILE"]);
    // The password alone, for a URL without one; an empty file is none.
    const password = { REDIS_PASSWORD_FILE: await file("password", "s3cret\n"), WEBHOOK_SECRET_FILE: "/dev/null" };
    expect(readWorkerConfig({ ...redis, ...password })).toMatchObject({
      redis: { password: "s3cret" },
      webhookSecrets: [],
    });
    expect(readWorkerConfig({ REDIS_URL: "redis://:own@127.0.0.1", ...password }).redis.password).toBe("own");
    expect(readWorkerConfig({ ...redis, WEBHOOK_SECRET: secret, WEBHOOK_SECRET_FILE: "/dev/null" })).toMatchObject({
      webhookSecrets: [secret],
    });
    const missing = problemsOf(() => readWorkerConfig({ ...redis, WEBHOOK_SECRET_FILE: join(dir, "nothing") }));
    expect(missing).toEqual(["  - WEBHOOK_SECRET_FILE cannot be read (ENOENT)"]);
    await rm(dir, { recursive: true });
  });

  test("every setting named like a secret may be in a file", () => {
    const names = Object.keys({ ...apiSettings.shape, ...workerSettings.shape });
    const secrets = names.filter((name) => /(SECRET|PASSWORD|TOKEN|(?<!PUBLIC)_KEY|API_KEYS|REDIS_URL)$/.test(name));
    expect(secrets.length).toBeGreaterThan(3);
    const readable: string[] = [...secretSettings, "API_KEYS"];
    expect(secrets.filter((name) => !readable.includes(name))).toEqual([]);
  });

  test("nothing is limited, trusted or allowed unless a setting says so", () => {
    const none = { requestsPerMinute: null, rowsPerMinute: null, failuresPerMinute: null };
    expect(readApiConfig(complete)).toMatchObject({
      rateLimits: none,
      corsOrigins: [],
      trustProxy: 0,
      maxBodyKeys: 10_000,
      maxRedisMemoryPart: 0.8,
    });
    const set = {
      RATE_LIMIT_PER_MINUTE: "600",
      RATE_LIMIT_ROWS_PER_MINUTE: "off",
      FAILED_LOGINS_PER_MINUTE: "30",
      TRUST_PROXY: "10.0.0.0/8, ::1",
      CORS_ORIGINS: "https://a.example, http://localhost:5173",
      MAX_REDIS_MEMORY_PART: "0.95",
    };
    expect(readApiConfig({ ...complete, ...set })).toMatchObject({
      rateLimits: { requestsPerMinute: 600, rowsPerMinute: null, failuresPerMinute: 30 },
      trustProxy: ["10.0.0.0/8", "::1"],
      corsOrigins: ["https://a.example", "http://localhost:5173"],
      maxRedisMemoryPart: 0.95,
    });
    expect(readApiConfig({ ...complete, MAX_REDIS_MEMORY_PART: "1" }).maxRedisMemoryPart).toBe(1);
    for (const text of ["0", "0.0", "1.1", "80", "80%"]) {
      const read = () => readApiConfig({ ...complete, MAX_REDIS_MEMORY_PART: text });
      expect(variablesIn(problemsOf(read))).toEqual(["MAX_REDIS_MEMORY_PART"]);
    }
    expect(readApiConfig({ ...complete, TRUST_PROXY: "2" }).trustProxy).toBe(2);
    const wrong = {
      RATE_LIMIT_PER_MINUTE: "0",
      RATE_LIMIT_ROWS_PER_MINUTE: "many",
      FAILED_LOGINS_PER_MINUTE: "-1",
      TRUST_PROXY: "everybody",
      CORS_ORIGINS: "*",
      MAX_BODY_KEYS: "0",
      BODY_TIMEOUT_SECONDS: "0",
    };
    expect(variablesIn(problemsOf(() => readApiConfig({ ...complete, ...wrong })))).toEqual(Object.keys(wrong).sort());
  });
});

describe("processes that fail to start", () => {
  let empty: string;
  beforeAll(async () => {
    empty = await mkdtemp(join(tmpdir(), "millrace-empty-"));
  });
  afterAll(() => rm(empty, { recursive: true }));

  /** Starts a process that ends by itself; resolves to its exit code, its output, and the ports it listened on. */
  const endOf = async (kind: "api" | "worker", env: Record<string, string>, program?: string) => {
    const lines: string[] = [];
    const ports: unknown[] = [];
    const own = { PATH: process.env.PATH, NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE, WORKER_PORT: "0", PORT: "0" };
    const service = spawnService(
      kind,
      { ...own, ...env },
      (line) => {
        if (line.port !== undefined) ports.push(line.port);
        if (line.service === undefined) lines.push(line.message ?? "");
      },
      program,
    );
    const code = await service.exited;
    // The last output may still be in the pipe.
    await Promise.all(
      [service.child.stdout, service.child.stderr].map((s) => s?.closed || new Promise((r) => s?.once("close", r))),
    );
    return { code, output: lines.join("\n"), ports };
  };

  test("an invalid configuration ends an API and a worker with 78 and all problems, before they listen", async () => {
    const api = await endOf("api", { PORT: "x", LOG_LEVEL: "loud" });
    expect([api.code, api.ports]).toEqual([78, []]);
    for (const name of ["PORT", "LOG_LEVEL", "REDIS_URL", "API_KEYS"]) expect(api.output).toContain(`- ${name} `);
    const worker = await endOf("worker", { WORKER_SLOTS: "0", WORKER_PORT: "x" });
    expect([worker.code, worker.ports]).toEqual([78, []]);
    for (const name of ["WORKER_SLOTS", "WORKER_PORT", "REDIS_URL"]) expect(worker.output).toContain(`- ${name} `);
    expect(api.output + worker.output).not.toMatch(/\bat \S+ \(|node_modules/);
  });

  test("a worker without a servable model ends with 78", async () => {
    const REDIS_URL = inject("redisUrl");
    for (const MODELS_DIR of [empty, join(empty, "nothing")]) {
      const { code, output } = await endOf("worker", { REDIS_URL, MODELS_DIR, WORKER_SLOTS: "1" });
      expect([code, output]).toEqual([78, expect.stringContaining("MODELS_DIR")]);
    }
  });

  test("a missing models folder is listed beside the other problems", async () => {
    const { code, output } = await endOf("worker", {
      REDIS_URL: inject("redisUrl"),
      MODELS_DIR: join(empty, "nothing"),
      WORKER_SLOTS: "0",
    });
    expect(code).toBe(78);
    for (const name of ["MODELS_DIR", "WORKER_SLOTS"]) expect(output).toContain(`- ${name} `);
  });

  test("an unreachable or silent Redis ends a start with 1 and one message without its address", async () => {
    const mute = createServer(() => undefined);
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    const { port } = mute.address() as { port: number };
    const times = { MILLRACE_TEST_TIMING: JSON.stringify({ redisDeadlineMs: 2000 }) };
    const away = "redis://:hidden@127.0.0.1:1";
    const ends = await Promise.all([
      endOf("api", { ...complete, ...times, REDIS_URL: away }, programs.api),
      endOf("api", { ...complete, ...times, REDIS_URL: `redis://127.0.0.1:${port}` }, programs.api),
      endOf("worker", { ...times, REDIS_URL: away, MODELS_DIR: empty, WORKER_SLOTS: "1" }, programs.worker),
    ]);
    mute.close();
    for (const { code, ports, output } of ends) {
      expect([code, ports]).toEqual([1, []]);
      expect(output).toMatch(/^Redis is not reachable.*REDIS_URL$/);
      expect(output).not.toMatch(/127\.0\.0\.1|hidden|ECONN/);
    }
  });
});
