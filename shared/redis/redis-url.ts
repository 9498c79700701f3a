/** The address of Redis, from `REDIS_URL`. */
export interface RedisTarget {
  kind: "single" | "sentinel" | "cluster";
  /** One address for `single`; the sentinels; or any nodes of the cluster. */
  hosts: { host: string; port: number }[];
  /** The master's name, for sentinels. */
  masterName: string | undefined;
  username: string | undefined;
  password: string | undefined;
  database: number;
  tls: boolean;
  /** A Unix socket instead of a host. */
  socketPath: string | undefined;
}

const defaultPort = { single: 6379, sentinel: 26_379, cluster: 6379 };
const pattern = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^@/]*)@)?([^/?#]+)(?:\/([^?#]*))?$/;

/**
 * Reads `redis://`, `rediss://`, `redis+sentinel://h1,h2/name[/db]`, `redis+cluster://h1,h2` and `unix:///socket`.
 * Throws an Error with the fault, but without the URL, which may hold a password.
 */
export function parseRedisUrl(text: string): RedisTarget {
  const nobody = { masterName: undefined, username: undefined, password: undefined, database: 0, tls: false };
  if (text.startsWith("unix://") && text.length > "unix://".length) {
    return { ...nobody, kind: "single", hosts: [], socketPath: text.slice("unix://".length) };
  }
  const match = pattern.exec(text);
  if (match === null) {
    throw new Error(
      "must look like redis://host:port, rediss://…, redis+sentinel://h1,h2/name or redis+cluster://h1,h2",
    );
  }
  const [, scheme, variant, credentials, hostList = "", path = ""] = match;
  const kind = (variant ?? "single") as RedisTarget["kind"];
  const hosts = hostList.split(",").map((entry) => parseHost(entry, defaultPort[kind]));
  if (kind === "single" && hosts.length > 1)
    throw new Error("names several hosts; say redis+sentinel or redis+cluster");
  const segments = path === "" ? [] : path.split("/");
  const masterName = kind === "sentinel" ? decode(segments.shift()) : undefined;
  if (kind === "sentinel" && !masterName) throw new Error("needs the master's name: redis+sentinel://h1,h2/name");
  const database = segments.length === 0 ? 0 : Number(segments.shift());
  if (!Number.isInteger(database) || database < 0 || segments.length > 0)
    throw new Error("has a path that is not a valid database number");
  if (kind === "cluster" && database !== 0) throw new Error("names a database, but a cluster has only 0");
  const colon = credentials?.indexOf(":") ?? -1;
  const username =
    credentials === undefined ? undefined : decode(colon < 0 ? credentials : credentials.slice(0, colon));
  const password = colon < 0 ? undefined : decode(credentials?.slice(colon + 1));
  return {
    kind,
    hosts,
    masterName,
    username: username || undefined,
    password: password || undefined,
    database,
    tls: scheme === "rediss",
    socketPath: undefined,
  };
}

/** The target with a password that its URL does not name; one in the URL is the more specific. */
export const withPassword = (target: RedisTarget, password: string | undefined): RedisTarget => ({
  ...target,
  password: target.password ?? password,
});

function parseHost(entry: string, preset: number): { host: string; port: number } {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:@[\]]+)(?::(\d{1,5}))?$/.exec(entry.trim());
  const port = match?.[2] === undefined ? preset : Number(match[2]);
  if (match === null || port > 65_535) throw new Error("has a host that cannot be read");
  return { host: (match[1] as string).replace(/^\[|\]$/g, ""), port };
}

function decode(text: string | undefined): string | undefined {
  try {
    return text === undefined ? undefined : decodeURIComponent(text);
  } catch {
    throw new Error("has a percent sign that encodes nothing");
  }
}
