import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openBucket } from "../support/http/s3-bucket.js";
import { startOwnCluster } from "../support/redis/own-cluster.js";
import { OwnRedis } from "../support/redis/own-redis.js";
import { startOwnSentinels } from "../support/redis/own-sentinels.js";
import { root } from "../support/run/tools.js";

const scripts = join(root, "deploy/chart/files/backup");

/** Runs a program beside this process, which answers it meanwhile. */
async function run(program: string, args: string[], env: Record<string, string> = {}) {
  const child = spawn(program, args, { cwd: root, env: { ...process.env, ...env } });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (output += part));
  const [code] = await once(child, "close");
  return { code, output };
}

describe("a backup", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "millrace-backup-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  const snapshots = () => readdirSync(folder).filter((name) => !name.startsWith("."));

  test("holds everything accepted, as the drill shows with a bucket: destroyed, restored, read", async () => {
    const bucket = await openBucket("id", "s3cret/+");
    const env = { BACKUP_BUCKET_URL: `${bucket.url}/pre`, AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "s3cret/+" };
    const { code, output } = await run(process.execPath, ["deploy/restore-drill.js"], env);
    expect(output).toContain("read: all 200 results and 5000 rows as before, and the 50 that waited are finished");
    expect(code).toBe(0);
    const [[name, bytes]] = [...bucket.objects] as [[string, Buffer]];
    expect(name).toMatch(/^\/bucket\/pre\/millrace-\d{8}T\d{6}Z\.rdb\.gz$/);
    // The same object by itself, as an operator would look at it.
    writeFileSync(join(folder, "millrace.rdb.gz"), bytes);
    const inspected = await run(process.execPath, ["deploy/restore-drill.js", join(folder, "millrace.rdb.gz")]);
    expect(inspected.output).toMatch(/Redis has loaded \d{3,} keys\n.*an API is ready on it/s);
    expect(inspected.output).toContain('ml_queue_depth{model="intrusion-decision-tree",state="waiting"} 50');
    await bucket.close();
  }, 240_000);

  test("is refused by a bucket under another secret, says so, and is sent with the next try", async () => {
    const bucket = await openBucket("id", "right");
    writeFileSync(join(folder, "millrace-20280101T000000Z.rdb.gz"), "x");
    const put = (secret: string) =>
      run("sh", [join(scripts, "bucket"), "put", folder], {
        BACKUP_BUCKET_URL: bucket.url,
        AWS_ACCESS_KEY_ID: "id",
        AWS_SECRET_ACCESS_KEY: secret,
      });
    const refused = await put("wrong");
    expect([refused.code === 0, bucket.objects.size]).toEqual([false, 0]);
    expect(refused.output).toContain("403");
    expect(await put("right")).toMatchObject({ code: 0 });
    expect((await put("right")).output).toBe("");
    expect(bucket.objects.size).toBe(1);
    await bucket.close();
  });

  test("keeps the newest, and leaves nothing under its name when Redis is away or refuses", async () => {
    const redis = await OwnRedis.start();
    for (const year of ["2001", "2002", "2003"]) writeFileSync(join(folder, `millrace-${year}0101T000000Z.rdb.gz`), "");
    const dump = (env: Record<string, string>) => run("bash", [join(scripts, "dump"), folder], env);
    expect(await dump({ REDIS_URL: redis.url, BACKUP_KEEP: "2" })).toMatchObject({ code: 0 });
    expect(snapshots()).toEqual(["millrace-20030101T000000Z.rdb.gz", expect.stringMatching(/^millrace-20[2-9]/)]);
    const refused = await dump({ REDIS_URL: redis.url, REDIS_PASSWORD: "none" });
    expect([refused.code, refused.output]).toEqual([1, expect.stringContaining("backup failed")]);
    await redis.close();
    const away = await dump({ REDIS_URL: redis.url });
    expect([away.code, away.output]).toEqual([1, expect.stringContaining("backup failed")]);
    expect(snapshots()).toHaveLength(2);
    expect(readdirSync(folder)).toHaveLength(2);
  });

  test("finds the master by its sentinels, and has a file of each master of a cluster", async () => {
    const dump = (url: string) => run("bash", [join(scripts, "dump"), folder], { REDIS_URL: url });
    const sentinels = await startOwnSentinels();
    expect(await dump(sentinels.url)).toMatchObject({ code: 0 });
    expect(snapshots()).toEqual([expect.stringMatching(/^millrace-\d{8}T\d{6}Z\.rdb\.gz$/)]);
    await sentinels.close();
    rmSync(join(folder, snapshots()[0] as string));
    const cluster = await startOwnCluster(3);
    expect(await dump(cluster.url)).toMatchObject({ code: 0 });
    expect(snapshots().map((name) => name.replace(/^millrace-\d{8}T\d{6}Z-/, ""))).toEqual(
      ["node1", "node2", "node3"].map((node) => `${node}.rdb.gz`),
    );
    await cluster.close();
  }, 120_000);

  test("is put back only into an empty folder", async () => {
    writeFileSync(join(folder, "there"), "");
    const { code, output } = await run("sh", [join(scripts, "restore"), "any.rdb.gz", folder]);
    expect([code, output]).toEqual([1, `restore: ${folder} is not empty\n`]);
  });
});
