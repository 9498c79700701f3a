import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { memoryOf, type Watched } from "../harness/process-usage.js";
import { median } from "../load/statistics.js";

/** Memory and handles of a process at one moment. */
interface Sample {
  atMs: number;
  pssMiB: number;
  handles: number;
}

/** Change of a process's memory and handles over the watched time, by medians of its first and its last part. */
export interface Course {
  name: string;
  pssMiB: { first: number; last: number; change: number };
  handles: { first: number; last: number; change: number };
  /** Medians of equal parts of the time, in order. */
  pssMiBByPart: number[];
}

const lookEveryMs = 5000;
const parts = 10;

/**
 * Samples processes every few seconds until `stop`; a process that ends meanwhile is an error. Connections to
 * `clientPort` belong to clients and are not counted.
 */
export function watchProcesses(watched: readonly Watched[], clientPort: number): { stop(): Course[] } {
  const samples = new Map(watched.map(({ pid }) => [pid, [] as Sample[]]));
  const look = () => {
    const clients = connectionsTo(clientPort);
    for (const [pid, list] of samples) {
      const handles = handlesOf(pid).filter((handle) => !clients.has(handle)).length;
      list.push({ atMs: performance.now(), pssMiB: memoryOf([pid]).pssMiB, handles });
    }
  };
  look();
  const timer = setInterval(look, lookEveryMs);
  return {
    stop() {
      clearInterval(timer);
      return watched.map(({ name, pid }) => courseOf(name, samples.get(pid) as Sample[]));
    },
  };
}

/** The open handles of a process, except those closed meanwhile. */
function handlesOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

const established = "01";

/** The sockets of connections to a port of this machine, in the form of handle names. */
function connectionsTo(port: number): Set<string> {
  const lines = ["tcp", "tcp6"].flatMap((name) => readFileSync(`/proc/net/${name}`, "utf8").split("\n"));
  const to = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const fields = lines.map((line) => line.trim().split(/\s+/));
  const found = fields.filter(([, local, , state]) => local?.endsWith(to) && state === established);
  return new Set(found.map((line) => `socket:[${line[9]}]`));
}

function courseOf(name: string, samples: readonly Sample[]): Course {
  const byPart = Array.from({ length: parts }, (_, i) =>
    samples.slice(Math.floor((i * samples.length) / parts), Math.floor(((i + 1) * samples.length) / parts)),
  ).filter((part) => part.length > 0);
  const between = (field: "pssMiB" | "handles") => {
    const of = (part: readonly Sample[] | undefined) => median((part ?? samples).map((sample) => sample[field]));
    const [first, last] = [of(byPart[0]), of(byPart.at(-1))];
    return { first, last, change: last / first - 1 };
  };
  return {
    name,
    pssMiB: between("pssMiB"),
    handles: between("handles"),
    pssMiBByPart: byPart.map((part) => Number(median(part.map(({ pssMiB }) => pssMiB)).toFixed(1))),
  };
}
