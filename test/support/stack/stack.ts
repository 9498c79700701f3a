import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type LogLine, type ServiceProcess, spawnService } from "@millrace/cli/service-process.js";
import type { ApiTiming, WorkerTiming } from "@millrace/shared/config/timing.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { expect, inject } from "vitest";
import { newPrefix } from "../run/prefix.js";

const root = fileURLToPath(new URL("../../../", import.meta.url));
/** Programs of the services that take timing from the test; no setting of the product does. */
export const programs = {
  api: fileURLToPath(new URL("./api-main.js", import.meta.url)),
  worker: fileURLToPath(new URL("./worker-main.js", import.meta.url)),
};

/** Keeps a busy machine from causing 503 in tests of other things. */
export const busyMachineTiming = { overloadLagMs: 60_000, redisCommandMs: 15_000 };

/** Timing in which a wait rereads its prediction only at its expiry, and after a reconnect to Redis. */
export const noticesOnly = { api: { noticesRereadMs: 3_600_000 } } as const;

/** Locks that expire soon after their worker has died. */
export const shortLocks = { worker: { lockMs: 3000, stalledCheckMs: 400 } } as const;

/** Slots in which the fixture `slow` sleeps instead of using a core. */
const sleepingSlot = fileURLToPath(new URL("../models/sleeping-slot.js", import.meta.url));

/** API keys; alice and bob are two owners. */
export const keys = { alice: "alice-key", bob: "bob-key", reader: "reader-key", admin: "admin-key" } as const;
const scopes = { alice: "predict", bob: "predict", reader: "read", admin: "predict+admin" };
const apiKeys = Object.entries(keys)
  .map(
    ([name, key]) => `${name}:${createHash("sha256").update(key).digest("hex")}:${scopes[name as keyof typeof keys]}`,
  )
  .join(",");

export type Owner = keyof typeof keys;

/** Manifests by fixture model. */
export type Manifests = Record<string, object>;

export interface StackOptions {
  /** Names of shipped models (`models/`) and of fixtures (`test/fixtures/models/`). */
  models: readonly string[];
  /** `model.json` to write beside a fixture's version. */
  manifests?: Manifests;
  workers?: number;
  apis?: number;
  slots?: number;
  env?: Record<string, string>;
  workerEnv?: Record<string, string>;
  redisUrl?: string;
  /** Timing in place of the product's, and of `busyMachineTiming`. */
  timing?: { api?: Partial<ApiTiming>; worker?: Partial<WorkerTiming> };
  /** Program of the slots, in place of the product's. */
  slotProgram?: string;
}

export interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: the shape depends on the path
  body: any;
}

/** Real processes on a real Redis, under a key prefix of its own. */
export class TestStack {
  readonly apis: (ServiceProcess & { url: string })[] = [];
  readonly workers: (ServiceProcess & { port: number })[] = [];
  readonly log: LogLine[] = [];
  readonly redis: RedisClient;
  readonly redisUrl: string;
  readonly prefix = newPrefix();
  readonly modelsDir: string;
  readonly #options: StackOptions;

  private constructor(options: StackOptions, modelsDir: string) {
    this.#options = options;
    this.modelsDir = modelsDir;
    this.redisUrl = options.redisUrl ?? inject("redisUrl");
    this.redis = openRedis(parseRedisUrl(this.redisUrl), "patient", "test");
    this.redis.on("error", () => undefined);
  }

  /** Starts workers first, then APIs; all are ready when this resolves. */
  static async start(options: StackOptions): Promise<TestStack> {
    const modelsDir = await mkdtemp(join(tmpdir(), "millrace-models-"));
    await copyModels(modelsDir, options.models, options.manifests ?? {});
    const stack = new TestStack(options, modelsDir);
    try {
      await Promise.all(Array.from({ length: options.workers ?? 1 }, () => stack.startWorker()));
      await Promise.all(Array.from({ length: options.apis ?? 1 }, () => stack.startApi()));
      return stack;
    } catch (fault) {
      await stack.close().catch(() => undefined);
      throw fault;
    }
  }

  get url(): string {
    return (this.apis[0] as { url: string }).url;
  }

  /** The environment of a service: of this machine's variables only those that Node needs. */
  environment(extra: Record<string, string> = {}): Record<string, string | undefined> {
    return {
      PATH: process.env.PATH,
      NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE,
      REDIS_URL: this.redisUrl,
      REDIS_KEY_PREFIX: this.prefix,
      MODELS_DIR: this.modelsDir,
      WORKER_SLOTS: String(this.#options.slots ?? 1),
      WORKER_PORT: "0",
      PORT: "0",
      LOG_LEVEL: "info",
      API_KEYS: apiKeys,
      ...this.#options.env,
      ...extra,
    };
  }

  async startWorker(env: Record<string, string> = {}): Promise<ServiceProcess & { port: number }> {
    const { models, timing, workerEnv } = this.#options;
    const slotProgram = this.#options.slotProgram ?? (models.includes("slow") ? sleepingSlot : undefined);
    const service = this.#spawn("worker", { ...workerEnv, ...env }, { times: timing?.worker, slotProgram });
    const entry = Object.assign(service, { port: 0 });
    this.workers.push(entry);
    entry.port = await service.ready;
    return entry;
  }

  async startApi(
    env: Record<string, string> = {},
    timing: Partial<ApiTiming> = {},
  ): Promise<ServiceProcess & { url: string }> {
    const times = { ...this.#defaultTiming(), ...this.#options.timing?.api, ...timing };
    const service = this.#spawn("api", env, { times });
    const entry = Object.assign(service, { url: "" });
    this.apis.push(entry);
    entry.url = `http://127.0.0.1:${await service.ready}`;
    return entry;
  }

  /** A test with its own Redis mostly makes it fail, and then measures how soon the API reports that. */
  #defaultTiming(): Partial<ApiTiming> {
    const { overloadLagMs } = busyMachineTiming;
    return this.#options.redisUrl === undefined ? busyMachineTiming : { overloadLagMs };
  }

  /** The product's own program, unless the test sets timing or a slot program. */
  #spawn(
    kind: "api" | "worker",
    env: Record<string, string>,
    own: { times?: object | undefined; slotProgram?: string | undefined },
  ) {
    const given = {
      ...(own.times !== undefined && { MILLRACE_TEST_TIMING: JSON.stringify(own.times) }),
      ...(own.slotProgram !== undefined && { MILLRACE_TEST_SLOT_PROGRAM: own.slotProgram }),
    };
    const program = Object.keys(given).length === 0 ? undefined : programs[kind];
    return spawnService(kind, this.environment({ ...env, ...given }), (line) => this.log.push(line), program);
  }

  /** Sends a request as an owner (default: alice), with an optional JSON body. */
  async call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const headers: Record<string, string> = { ...options.headers };
    if (options.as !== null) headers.authorization ??= `Bearer ${keys[options.as ?? "alice"]}`;
    let body: string | undefined = options.text;
    if (options.json !== undefined) {
      headers["content-type"] ??= "application/json";
      body = JSON.stringify(options.json);
    }
    const response = await fetch(`${options.url ?? this.url}${path}`, {
      method,
      headers,
      redirect: "manual",
      ...(body !== undefined && { body }),
    });
    const text = await response.text();
    const isJson = /[/+]json/.test(response.headers.get("content-type") ?? "");
    return {
      status: response.status,
      headers: response.headers,
      body: isJson && text !== "" ? JSON.parse(text) : text,
    };
  }

  get(path: string, options: CallOptions = {}): Promise<Answer> {
    return this.call("GET", path, options);
  }

  post(path: string, json: unknown, options: CallOptions = {}): Promise<Answer> {
    return this.call("POST", path, { json, ...options });
  }

  /** Submits an input and waits for its end, without the cache unless `rest` has `cache: true`. */
  async predict(
    model: string,
    input: unknown,
    rest: Record<string, unknown> = {},
    options: CallOptions = {},
  ): Promise<Answer> {
    const headers = { prefer: "wait=30", ...options.headers };
    return this.post(`/v1/models/${model}/predictions`, { input, cache: false, ...rest }, { ...options, headers });
  }

  /**
   * Submits without waiting, and without the cache unless `rest` has `cache: true`; expects 202 and returns the
   * prediction.
   */
  async submit(
    model: string,
    input: unknown,
    rest: Record<string, unknown> = {},
    options: CallOptions = {},
    // biome-ignore lint/suspicious/noExplicitAny: see Answer
  ): Promise<any> {
    const answer = await this.post(`/v1/models/${model}/predictions`, { input, cache: false, ...rest }, options);
    expect(answer.status, JSON.stringify(answer.body)).toBe(202);
    return answer.body;
  }

  /** Waits until a prediction is final and returns it. */
  // biome-ignore lint/suspicious/noExplicitAny: see Answer
  async final(id: string, options: CallOptions = {}): Promise<any> {
    for (let tries = 0; tries < 6; tries++) {
      const { body, status } = await this.get(`/v1/predictions/${id}?wait=20`, options);
      expect(status, JSON.stringify(body)).toBe(200);
      if (["succeeded", "failed", "canceled", "expired"].includes(body.status)) return body;
    }
    throw new Error(`prediction ${id} did not become final`);
  }

  /** Lines of the services' logs with this message. */
  logged(message: string): LogLine[] {
    const lines = this.log.filter((line) => line.message === message);
    // One line may report an event for several predictions at once.
    return lines.flatMap(({ predictions, ...line }) =>
      Array.isArray(predictions) ? predictions.map((one: object) => ({ ...line, ...one })) : [line],
    );
  }

  /** Stops every process, expects exit code 0, and removes keys and files. */
  async close(): Promise<void> {
    const running = [...this.apis, ...this.workers].filter(
      ({ child }) => child.exitCode === null && child.signalCode === null,
    );
    const ends = await Promise.all(running.map((service) => service.stop(40_000)));
    await this.#removeKeys();
    this.redis.disconnect();
    await rm(this.modelsDir, { recursive: true, force: true });
    expect(ends, "every service ends with exit code 0").toEqual(ends.map(() => 0));
  }

  async #removeKeys(): Promise<void> {
    if (!("scanStream" in this.redis)) return;
    for await (const found of this.redis.scanStream({ match: `${this.prefix}:*`, count: 1000 })) {
      if (found.length > 0) await this.redis.unlink(...(found as string[]));
    }
  }
}

export interface CallOptions {
  /** null: without a key. */
  as?: Owner | null;
  headers?: Record<string, string>;
  json?: unknown;
  text?: string;
  /** Default: the first API. */
  url?: string;
}

/** Copies shipped models and fixtures, with their manifests, into a model repository. */
export async function copyModels(dir: string, models: readonly string[], manifests: Manifests = {}): Promise<void> {
  for (const model of models) {
    const shipped = join(root, "models", model);
    const from = existsSync(shipped) ? shipped : join(root, "test/fixtures/models", model);
    await mkdir(join(dir, model), { recursive: true });
    await cp(from, join(dir, model), { recursive: true });
    const manifest = manifests[model];
    if (manifest !== undefined) await writeFile(join(dir, model, "model.json"), JSON.stringify(manifest));
  }
}
