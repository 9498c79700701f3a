import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { type FoundRedis, findRedis, startRedis } from "@millrace/cli/redis-server.js";
import { readWorkerConfig } from "@millrace/shared/config/worker-config.js";
import { checkRedis } from "@millrace/shared/redis/check-redis.js";
import { openRedis, type RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { parseRedisUrl } from "@millrace/shared/redis/redis-url.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { TestStack } from "../support/stack/stack.js";

const run = promisify(execFile);
const found = fileURLToPath(import.meta.resolve("@millrace/cli/redis-server.js"));

describe("REDIS_URL", () => {
  const single = (host: string, port = 6379) => ({ kind: "single", hosts: [{ host, port }], database: 0, tls: false });
  test.each<[string, object]>([
    ["redis://localhost", single("localhost")],
    ["redis://10.0.0.1:7000/3", { ...single("10.0.0.1", 7000), database: 3 }],
    ["redis://[::1]:7000", single("::1", 7000)],
    ["redis://[fe80::1]", single("fe80::1")],
    ["redis://:p%40ss%2Fw%3Ard@host", { ...single("host"), username: undefined, password: "p@ss/w:rd" }],
    ["redis://me:a:b@host", { ...single("host"), username: "me", password: "a:b" }],
    ["rediss://me@host:6380", { ...single("host", 6380), username: "me", password: undefined, tls: true }],
    [
      "redis+sentinel://s1,s2:26380/main/2",
      {
        kind: "sentinel",
        masterName: "main",
        database: 2,
        hosts: [
          { host: "s1", port: 26_379 },
          { host: "s2", port: 26_380 },
        ],
      },
    ],
    [
      "rediss+cluster://:x@n1,[::2]:7001",
      {
        kind: "cluster",
        tls: true,
        password: "x",
        hosts: [
          { host: "n1", port: 6379 },
          { host: "::2", port: 7001 },
        ],
      },
    ],
    ["unix:///run/redis.sock", { kind: "single", hosts: [], socketPath: "/run/redis.sock" }],
  ])("%s is understood", (url, target) => {
    expect(parseRedisUrl(url)).toMatchObject(target);
  });

  test.each([
    "secret-host:6379",
    "redis://",
    "redis://secret-host:port",
    "redis://secret-host:70000",
    "redis://secret-host/secret",
    "redis://secret-host/1/2",
    "redis://secret-host/1?password=secret",
    "redis://a,secret-host",
    "redis+sentinel://secret-host",
    "redis+sentinel://secret-host/%zz",
    "redis+cluster://secret-host/1",
    "redis://:%zzsecret@host",
    "redis://:sec@ret@host",
    "redis://[secret",
  ])("%s is refused without being shown", (url) => {
    let message = "";
    try {
      readWorkerConfig({ REDIS_URL: url });
    } catch (fault) {
      message = (fault as Error).message;
    }
    expect(message).toMatch(/REDIS_URL \S/);
    expect(message).not.toMatch(/secret|ret@|%zz/);
  });
});

describe("a Redis that is found or started", () => {
  let dir: string;
  let bin: string;
  let program: string;
  const say = () => undefined;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-find-"));
    bin = join(dir, "bin");
    await mkdir(bin);
    program = (await run("sh", ["-c", "command -v redis-server || command -v valkey-server"])).stdout.trim();
    const script = `#!/bin/sh\necho "$@" > '${dir}/started'\nexec '${program}' "$@"\n`;
    await writeFile(join(bin, "redis-server"), script, { mode: 0o755 });
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  const isAlive = (pid: number) => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  const using = async <T>({ url }: { url: string }, use: (redis: RedisClient) => Promise<T>): Promise<T> => {
    const redis = openRedis(parseRedisUrl(url), "patient", "test");
    redis.on("error", () => undefined);
    try {
      return await use(redis);
    } finally {
      redis.disconnect();
    }
  };

  test("REDIS_URL takes precedence over programs, and none is started", async () => {
    const dataDir = join(dir, "unused");
    const redis = await findRedis({ redisUrl: "redis://elsewhere:1", path: bin, dataDir, say });
    expect(redis).toMatchObject({ url: "redis://elsewhere:1", pid: null });
    await redis.close();
    expect(existsSync(join(dir, "started"))).toBe(false);
    expect(existsSync(dataDir)).toBe(false);
  });

  test("the program on PATH is started on 127.0.0.1 only, durable, and keeps its data across restarts", async () => {
    const options = { redisUrl: undefined, path: `${bin}:/usr/bin:/bin`, dataDir: join(dir, "data"), say };
    const first = await findRedis(options);
    expect(existsSync(join(dir, "started"))).toBe(true);
    await using(first, async (redis) => {
      const facts = await checkRedis(redis, 5000, "fsync");
      expect(facts).toMatchObject({ durability: "fsync", maxmemoryPolicy: "noeviction", warnings: [] });
      expect(await redis.config("GET", "bind")).toEqual(["bind", "127.0.0.1"]);
      await redis.set("kept", "yes");
    });
    await first.close();
    expect(isAlive(first.pid as number)).toBe(false);
    const second = await findRedis(options);
    expect(await using(second, (redis) => redis.get("kept"))).toBe("yes");
    await second.close();
    await second.close();
  });

  test("is installed once by calls at the same time, and waits for a package manager that is in use", async () => {
    const managers = join(dir, "managers");
    await mkdir(managers);
    // As apt-get: refused at once while another holds its lock.
    const apt = `#!/bin/sh
      if ! mkdir '${dir}/lock' 2>/dev/null; then
        echo refused >> '${dir}/apt'; echo 'E: Could not get lock /var/lib/apt/lists/lock.' >&2; exit 100
      fi
      echo "$1" >> '${dir}/apt'; sleep 0.2; rmdir '${dir}/lock'`;
    await writeFile(join(managers, "apt-get"), apt, { mode: 0o755 });
    await writeFile(join(managers, "sudo"), '#!/bin/sh\nshift; exec "$@"', { mode: 0o755 });
    const code = `import { installRedis } from ${JSON.stringify(found)};
      const tried = await Promise.all([1, 2].map(() => installRedis(() => undefined)));
      process.stdout.write(JSON.stringify(tried));`;
    const env = { ...process.env, PATH: `${managers}:/usr/bin:/bin` };
    await mkdir(join(dir, "lock"));
    const both = [1, 2].map(() => run(process.execPath, ["--input-type=module", "-e", code], { env }));
    const refused = async () => (await readFile(join(dir, "apt"), "utf8")).includes("refused");
    await eventually(async () => expect(await refused()).toBe(true));
    await rmdir(join(dir, "lock"));
    for (const { stdout } of await Promise.all(both)) expect(JSON.parse(stdout)).toEqual(["", ""]);
    const calls = (await readFile(join(dir, "apt"), "utf8")).trim().split("\n");
    expect(calls.filter((call) => call !== "refused").sort()).toEqual(["install", "install", "update", "update"]);
  });

  test("a private Redis ends when the process that started it is killed", async () => {
    const code = `import { startRedis } from ${JSON.stringify(found)};
      const { pid } = await startRedis(${JSON.stringify(program)}, ${JSON.stringify(join(dir, "orphan"))});
      process.stdout.write(String(pid));
      setInterval(() => undefined, 1000);`;
    const parent = spawn(process.execPath, ["--input-type=module", "-e", code], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [text] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(text);
    expect(isAlive(pid)).toBe(true);
    parent.kill("SIGKILL");
    await eventually(() => expect(isAlive(pid)).toBe(false));
  });

  test("a pending close of a private Redis keeps its process alive", async () => {
    const code = `import { startRedis } from ${JSON.stringify(found)};
      const redis = await startRedis(${JSON.stringify(program)}, ${JSON.stringify(join(dir, "closed"))});
      redis.close().then(() => process.exit(7));`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: "ignore" });
    expect((await once(child, "exit"))[0]).toBe(7);
  });

  describe("with settings that may lose work", () => {
    let lossy: FoundRedis;
    beforeAll(async () => {
      const args = ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"];
      lossy = await startRedis(program, join(dir, "lossy"), args);
    });
    afterAll(() => lossy.close());

    test("causes warnings before the first job, by API and worker, and in /ready", async () => {
      const facts = await using(lossy, (redis) => checkRedis(redis, 5000));
      expect(facts).toMatchObject({ durability: "none", maxmemoryPolicy: "allkeys-lru" });
      expect(facts.warnings).toEqual([expect.stringContaining("noeviction"), expect.stringContaining("appendonly")]);
      const stack = await TestStack.start({ models: ["scalars"], redisUrl: lossy.url });
      const warned = stack.log
        .filter(({ level }) => level === "warn")
        .map(({ message, service }) => [service, message]);
      for (const warning of facts.warnings) {
        for (const service of ["api", "worker"]) expect(warned).toContainEqual([service, `redis: ${warning}`]);
      }
      const ready = await stack.get("/ready", { as: null });
      expect(ready.body).toMatchObject({ durability: "none", warnings: facts.warnings });
      await stack.close();
    });

    test("is refused if DURABILITY promises more", async () => {
      await using(lossy, async (redis) => {
        await expect(checkRedis(redis, 5000, "fsync")).rejects.toThrow("DURABILITY=fsync");
        await expect(checkRedis(redis, 5000, "everysec")).rejects.toThrow("DURABILITY=everysec");
        await redis.config("SET", "appendonly", "yes");
        // Redis cannot be stopped until its first append-only file is written.
        await eventually(async () => expect(await redis.info("persistence")).toContain("aof_rewrite_in_progress:0"));
        await redis.config("SET", "appendfsync", "everysec");
        await expect(checkRedis(redis, 5000, "fsync")).rejects.toThrow("DURABILITY=fsync");
        expect((await checkRedis(redis, 5000, "everysec")).durability).toBe("everysec");
        await redis.config("SET", "appendfsync", "always");
        expect((await checkRedis(redis, 5000, "fsync")).durability).toBe("fsync");
      });
    });
  });
});
