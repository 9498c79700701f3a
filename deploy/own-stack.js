import { execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { spawnService } from "@millrace/cli/service-process.js";

/** The repository's root. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/**
 * Real processes of a script's own: Redis with `deploy/redis.conf`, APIs, workers and others, in a folder of their own.
 * `close` kills them and deletes the folder; SIGINT and SIGTERM do the same.
 */
export function openOwnStack() {
  const folder = mkdtempSync(join(tmpdir(), "millrace-check-"));
  const password = randomBytes(16).toString("hex");
  const key = `check_${randomBytes(16).toString("hex")}`;
  const running = new Set();
  const close = () => {
    for (const child of running) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  };
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => {
      close();
      process.exit(1);
    });
  }

  /** Any program; it ends with the stack. */
  function start(program, args, options = {}) {
    const child = spawn(program, args, { stdio: "ignore", ...options });
    running.add(child);
    return child;
  }

  /** A Redis on a data folder; resolves when it has loaded its data. */
  async function startRedis(data, port) {
    mkdirSync(data, { recursive: true });
    port ??= await freePort();
    const more = ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", data, "--requirepass", password];
    const child = start("redis-server", [join(root, "deploy/redis.conf"), ...more]);
    const cli = (...args) =>
      execFileSync("redis-cli", ["-p", `${port}`, ...args], {
        env: { ...process.env, REDISCLI_AUTH: password },
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      }).trim();
    for (let i = 0; ; i++) {
      try {
        if (cli("ping") === "PONG") return { child, cli, port, url: `redis://127.0.0.1:${port}` };
      } catch (fault) {
        if (i > 600 || child.exitCode !== null) throw new Error("Redis did not start", { cause: fault });
      }
      await new Promise((done) => setTimeout(done, 100));
    }
  }

  /** An API or a worker; resolves when it is ready. */
  async function startService(kind, redis, env = {}) {
    const hash = createHash("sha256").update(key).digest("hex");
    const service = spawnService(kind, {
      PATH: process.env.PATH,
      NODE_V8_COVERAGE: process.env.NODE_V8_COVERAGE,
      REDIS_URL: redis.url,
      REDIS_PASSWORD: password,
      API_KEYS: `check:${hash}`,
      PORT: "0",
      WORKER_PORT: "0",
      WORKER_SLOTS: "1",
      WORKER_ROLES: "inference",
      MODELS_DIR: join(root, "models"),
      // The line that tells of its port is an info.
      LOG_LEVEL: "info",
      ...env,
    });
    running.add(service.child);
    return { child: service.child, url: `http://127.0.0.1:${await service.ready}` };
  }

  async function kill({ child }) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  /** A request to an API with the stack's key, repeated while the API asks for it; throws unless it succeeds. */
  async function call(api, path, body, headers = {}) {
    const posted = body === undefined ? null : randomBytes(12).toString("hex");
    for (let tries = 0; ; tries++) {
      const answer = await fetch(api.url + path, {
        method: posted === null ? "GET" : "POST",
        headers: {
          authorization: `Bearer ${key}`,
          "content-type": "application/json",
          ...(posted !== null && { "idempotency-key": posted }),
          ...headers,
        },
        ...(posted !== null && { body: typeof body === "string" ? body : JSON.stringify(body) }),
        signal: AbortSignal.timeout(90_000),
      });
      if (answer.ok) return answer;
      const text = await answer.text();
      const again = [429, 503].includes(answer.status) && tries < 60;
      if (!again) throw new Error(`${path} answered ${answer.status}: ${text}`);
      await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("retry-after") ?? 1)));
    }
  }

  return { folder, password, start, startRedis, startService, kill, call, close };
}
