import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, realpath, rename, rm } from "node:fs/promises";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

// Plain JavaScript, because `npm start` takes the lock before anything is built.

/**
 * A process with a claim on the data folder. `held`: it has the lock; else it is still being decided. A process that
 * does not tell, as one of another user or one that is stopped, counts as a holder.
 * @typedef {{ file: string, pid: number, held: boolean, url: string | null }} Claim
 */

/**
 * The lock of a data folder. The kernel takes it back when the process ends, in whatever way.
 * @typedef {object} DataLock
 * @property {(url: string) => void} tellUrl Sets the URL that later starts are told.
 * @property {() => Promise<void>} release May be called twice.
 */

const lockFolder = "lock";
const answerMs = 400;
const decideMs = 800;
/** What a file system without sockets fails with. */
const noSockets = new Set(["ENOTSUP", "EOPNOTSUPP", "EPERM", "EINVAL"]);
/** The kernel's limit for the path of a socket, less the file's own name; a longer one would be cut. */
const longestFolder = 100 - "/1234567890-0123456789ab.sock".length;

/** The data folder is in use; the message says by which process and where it answers. */
export class DataFolderInUseError extends Error {
  /**
   * @param {string} dataDir
   * @param {Pick<Claim, "pid" | "url">} claim
   */
  constructor(dataDir, { pid, url }) {
    const where = url === null ? "which is still starting" : `at ${url}`;
    super(
      `Millrace already runs on the data folder ${shortest(dataDir)}: process ${pid}, ${where}. ` +
        `Use that one, or stop it first (kill ${pid}). Nothing was changed.`,
    );
    this.name = "DataFolderInUseError";
  }
}

/**
 * Locks a data folder for this process, and makes it where it is missing. Rejects with a DataFolderInUseError, without
 * touching anything, where a living process has it. Of several that start together one gets it.
 *
 * A claim is a socket with a name of its own in the folder. Whether its process lives is asked of the kernel by
 * connecting, so no reused process id and no file left over is mistaken for it. Each process first publishes its claim
 * and then looks at those of others: of two, at least one sees the other. Between two undecided ones the lower name
 * wins.
 * @param {string} dataDir
 * @returns {Promise<DataLock>}
 */
export async function lockDataFolder(dataDir) {
  const refuseIfHeld = async () => {
    const holder = (await claimsOn(dataDir)).living.find(({ held }) => held);
    if (holder !== undefined) throw new DataFolderInUseError(dataDir, holder);
  };
  await refuseIfHeld();
  const own = await publish(dataDir).catch(async (fault) => {
    // A new holder may have taken this claim, not yet named, for one left over.
    await refuseIfHeld();
    throw new Error(`The data folder ${shortest(dataDir)} cannot be used: ${fault.message}`);
  });
  try {
    const deadline = performance.now() + decideMs;
    for (;;) {
      const { gone, living } = await claimsOn(dataDir);
      const others = living.filter(({ file }) => file !== own.file);
      const first = others.find(({ file, held }) => held || nameOf(file) < nameOf(own.file));
      if (first !== undefined) throw new DataFolderInUseError(dataDir, first);
      if (others.length === 0) {
        own.hold();
        await Promise.all(gone.map((file) => rm(file, { force: true })));
        return own;
      }
      if (performance.now() > deadline) throw new DataFolderInUseError(dataDir, /** @type {Claim} */ (others[0]));
      await delay(20);
    }
  } catch (fault) {
    await own.release();
    throw fault;
  }
}

/**
 * The claims on a data folder: of living processes, and the files of others.
 * @param {string} dataDir
 */
async function claimsOn(dataDir) {
  const folders = await foldersOf(dataDir);
  const names = await Promise.all(
    folders.map(async (folder) => (await readdir(folder).catch(() => [])).map((name) => join(folder, name))),
  );
  const files = names.flat().filter((file) => /^\d+-[0-9a-f]+\.(sock|new)$/.test(nameOf(file)));
  const claims = await Promise.all(files.map(async (file) => ({ file, claim: await ask(file) })));
  return {
    living: claims.flatMap(({ claim, file }) => (claim === null || file.endsWith(".new") ? [] : [claim])),
    gone: claims.flatMap(({ claim, file }) => (claim === null ? [file] : [])),
  };
}

/**
 * Where claims on a data folder may be: within it, or in the folder for temporary files where it takes no sockets
 * or has too long a path.
 * @param {string} dataDir
 */
async function foldersOf(dataDir) {
  const inside = join(shortest(dataDir), lockFolder);
  const path = await realpath(dataDir).catch(() => null);
  if (path === null) return [inside];
  const hash = createHash("sha256").update(path).digest("hex").slice(0, 16);
  const elsewhere = join(tmpdir(), `millrace-${process.getuid?.() ?? 0}-${hash}`);
  return Buffer.byteLength(inside) > longestFolder ? [elsewhere] : [inside, elsewhere];
}

/**
 * Asks a claim's process for its state; null where none listens there any more.
 * @param {string} file
 * @returns {Promise<Claim | null>}
 */
function ask(file) {
  const unknown = { file, pid: Number.parseInt(nameOf(file), 10), held: true, url: null };
  return new Promise((resolve) => {
    let text = "";
    const socket = createConnection(file);
    const finish = (/** @type {Claim | null} */ claim) => {
      socket.destroy();
      resolve(claim);
    };
    socket.setTimeout(answerMs, () => finish(unknown));
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("end", () => {
      try {
        finish({ ...JSON.parse(text), file });
      } catch {
        // It ended while it was asked.
        finish(text === "" ? null : unknown);
      }
    });
    socket.on("error", (/** @type {NodeJS.ErrnoException} */ { code }) => {
      const isGone = ["ECONNREFUSED", "ECONNRESET", "ENOENT", "ENOTSOCK", "EPIPE"].includes(code ?? "");
      finish(isGone ? null : unknown);
    });
  });
}

/**
 * Publishes this process's claim. It appears under its name only once it answers, so that nobody takes it for one left
 * over.
 * @param {string} dataDir
 */
async function publish(dataDir) {
  await mkdir(dataDir, { recursive: true });
  const state = { pid: process.pid, held: false, url: /** @type {string | null} */ (null) };
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.end(JSON.stringify(state));
  });
  server.unref();
  const name = `${process.pid}-${randomBytes(6).toString("hex")}`;
  const file = await listenIn(server, await foldersOf(dataDir), name);
  return {
    file,
    hold() {
      state.held = true;
    },
    tellUrl(/** @type {string} */ url) {
      state.url = url;
    },
    async release() {
      server.close();
      await rm(file, { force: true });
    },
  };
}

/**
 * Listens in the first of the folders that takes sockets, and resolves to the file.
 * @param {import("node:net").Server} server
 * @param {string[]} folders
 * @param {string} name
 */
async function listenIn(server, folders, name) {
  for (const [i, folder] of folders.entries()) {
    const unnamed = join(folder, `${name}.new`);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await new Promise((resolve, reject) => {
        server.once("error", reject);
        server.listen(unnamed, () => resolve(null));
      });
    } catch (fault) {
      const code = /** @type {NodeJS.ErrnoException} */ (fault).code ?? "";
      if (i === folders.length - 1 || !noSockets.has(code)) throw fault;
      continue;
    }
    const file = join(folder, `${name}.sock`);
    await rename(unnamed, file);
    return file;
  }
  throw new Error("no folder for the lock");
}

/**
 * The shorter way to write a path: the name of a socket has about a hundred bytes.
 * @param {string} path
 */
function shortest(path) {
  const fromHere = relative(process.cwd(), path);
  return fromHere !== "" && fromHere.length < path.length ? fromHere : path;
}

/** @param {string} file */
const nameOf = (file) => file.slice(file.lastIndexOf("/") + 1);
