import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Memory that a process holds in RAM, in bytes; null for one that is gone. Linux tells it in a file, others by `ps`. */
export async function residentBytes(pid: number): Promise<number | null> {
  try {
    const kib =
      process.platform === "linux"
        ? /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]
        : (await run("ps", ["-o", "rss=", "-p", String(pid)])).stdout.trim();
    return kib ? Number(kib) * 1024 : null;
  } catch {
    return null;
  }
}
