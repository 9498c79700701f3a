import { createHash, type KeyObject } from "node:crypto";
import type { Dirent } from "node:fs";
import { lstat, opendir, readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { defaultManifest, isModelName, type Manifest } from "@millrace/shared/models/manifest.js";
import { digestOfFiles, hashFiles } from "@millrace/shared/models/model-digest.js";
import { type SignedFiles, verifySignature } from "@millrace/shared/models/model-signature.js";
import { complaintsText, readManifest } from "@millrace/shared/models/read-manifest.js";
import { listVersionFiles, stampOf, type VersionFile } from "@millrace/shared/models/version-files.js";
import { layoutFault, mayBeMislaid, nameFault, strayFault, versionPattern } from "./layout-fault.js";
import { shownName } from "./shown-name.js";

/** A version's folder, of which no file has been read. */
export interface VersionFolder {
  model: string;
  version: string;
  folder: string;
  files: VersionFile[];
  /** Path of its `model.json`: its own, else the model's; null where there is none. */
  manifestFile: string | null;
  /** Changes with every change of a file. */
  stamp: string;
}

/** A version in the model repository, with its files checked. */
export interface FoundVersion extends VersionFolder {
  digest: string;
  manifest: Manifest;
  /** The ONNX file. */
  file: string;
}

/** A model folder that cannot be served. */
export interface BadModel {
  /** As it is shown: a model's name, else escaped and cut. */
  model: string;
  version: string | null;
  reason: string;
}

/** What is listed as bad for the models folder as a whole. */
export const wholeFolder = "MODELS_DIR";
const mostEntries = 10_000;
const mostVersions = 1000;
/** Entries that are no models and are looked at for the reason. */
const mostLooks = 1000;
const mostBad = 200;
const manifestName = "model.json";
const largestManifestBytes = 16 * 1024 * 1024;

/**
 * Lists `<dir>/<model>/<version>/`. Folders that do not look like a model are skipped. A model with a fault, or not
 * laid out as one, is listed as bad, without effect on others. Of a folder with more entries than any repository has, a
 * part is looked at, with the `held` models always among it. Rejects where the folder itself cannot be read.
 */
export async function listVersions(
  dir: string,
  globs: readonly string[],
  held: ReadonlySet<string> = new Set(),
): Promise<{ folders: VersionFolder[]; bad: BadModel[] }> {
  const wanted = globs.map(globPattern);
  const folders: VersionFolder[] = [];
  const bad: BadModel[] = [];
  const { entries, isWhole } = await entriesOf(dir, held);
  let looks = 0;
  const fault = async (name: string, find: () => Promise<string | null>) => {
    if (looks >= mostLooks || bad.length >= mostBad) return;
    looks += 1;
    const reason = await find();
    if (reason !== null) bad.push({ model: shownName(name), version: null, reason });
  };
  for (const entry of entries) {
    const { name } = entry;
    if (!wanted.some((pattern) => pattern.test(name))) continue;
    const home = resolve(dir, name);
    if (entry.isSymbolicLink() && isModelName(name)) {
      await fault(name, async () => "the model is a link; a model is a plain folder");
    }
    if (entry.isFile() && !name.startsWith(".")) await fault(name, () => strayFault(name, home));
    if (!entry.isDirectory() || name.startsWith(".")) continue;
    const names = await readdir(home).catch((fault: NodeJS.ErrnoException) => {
      // A folder that disappears meanwhile is empty; one that cannot be read must not unload its versions.
      if (fault.code === "ENOENT") return [];
      throw fault;
    });
    const found = names.filter((name) => versionPattern.test(name)).sort((a, b) => +a - +b);
    const versions = found.slice(-mostVersions);
    if (!isModelName(name)) {
      await fault(name, async () =>
        versions.length > 0 || (await layoutFault(name, home, versions)) !== null ? nameFault(name) : null,
      );
      continue;
    }
    if (found.length > mostVersions) {
      await fault(
        name,
        async () =>
          `it has ${found.length} versions, of which the highest ${mostVersions} are looked at: remove old ones`,
      );
    } else if (versions.length === 0 || mayBeMislaid(names)) {
      await fault(name, () => layoutFault(name, home, versions));
    }
    for (const version of versions) {
      const listed = await listVersion(name, version, home);
      if ("reason" in listed) bad.push(listed);
      else folders.push(listed);
    }
  }
  if (!isWhole || looks >= mostLooks || bad.length >= mostBad) {
    const reason = "it has more folders or files that are no models than are looked at: remove what is no model";
    bad.push({ model: wholeFolder, version: null, reason });
  }
  return { folders, bad };
}

interface Entry extends Pick<Dirent, "isDirectory" | "isFile" | "isSymbolicLink"> {
  name: string;
}

/** Entries of the models folder by name, as many as are looked at, and those of held models in any case. */
async function entriesOf(dir: string, held: ReadonlySet<string>): Promise<{ entries: Entry[]; isWhole: boolean }> {
  const entries = new Map<string, Entry>();
  let isWhole = true;
  for await (const entry of await opendir(dir, { bufferSize: 1000 })) {
    isWhole = entries.size < mostEntries;
    if (!isWhole) break;
    entries.set(entry.name, entry);
  }
  for (const name of isWhole ? [] : held) {
    if (entries.has(name)) continue;
    const stats = await lstat(join(dir, name)).catch(() => null);
    if (stats !== null) entries.set(name, Object.assign(stats, { name }));
  }
  return { entries: [...entries.values()].sort((a, b) => (a.name < b.name ? -1 : 1)), isWhole };
}

async function listVersion(model: string, version: string, home: string): Promise<VersionFolder | BadModel> {
  const folder = join(home, version);
  try {
    const files = await listVersionFiles(folder);
    const own = files.some(({ path }) => path === manifestName);
    const manifestFile = join(own ? folder : home, manifestName);
    const manifestStamp = await stampOfManifest(manifestFile);
    return {
      ...{ model, version, folder, files },
      manifestFile: manifestStamp === null ? null : manifestFile,
      stamp: `${stampOf(files)}\n${manifestStamp}`,
    };
  } catch (fault) {
    return { model, version, reason: reasonOf(fault) };
  }
}

/** Reads a version's manifest and digest. Rejects with the reason where its files cannot be served. */
export async function readVersion(found: VersionFolder, publicKeys: readonly KeyObject[]): Promise<FoundVersion> {
  try {
    const { files, folder, manifestFile, model, version } = found;
    const hashes = await hashFiles(folder, files);
    const text = manifestFile === null ? null : await readFile(manifestFile);
    if (publicKeys.length > 0) {
      const signed: SignedFiles = { model, version, hashes, manifestOutside: null };
      const isOutside = text !== null && !hashes.has(manifestName);
      if (isOutside) signed.manifestOutside = createHash("sha256").update(text).digest("hex");
      await verifySignature(folder, signed, publicKeys);
    }
    const manifest = text === null ? defaultManifest() : parseManifest(text.toString());
    return { ...found, digest: digestOfFiles(hashes), manifest, file: join(folder, "model.onnx") };
  } catch (fault) {
    throw new Error(reasonOf(fault));
  }
}

async function stampOfManifest(file: string): Promise<string | null> {
  const stat = await lstat(file).catch((fault: NodeJS.ErrnoException) => {
    if (fault.code === "ENOENT") return null;
    throw fault;
  });
  if (stat === null) return null;
  if (!stat.isFile()) throw new Error("model.json is a link or a device; it must be a plain file");
  if (stat.size > largestManifestBytes) throw new Error(`model.json has more than ${largestManifestBytes} bytes`);
  return `${stat.size}:${stat.mtimeMs}:${stat.ctimeMs}:${stat.ino}`;
}

/** A reason without a path of this machine. */
function reasonOf(fault: unknown): string {
  const { code, message } = fault as NodeJS.ErrnoException;
  return code === undefined ? message : `a file of it cannot be read (${code})`;
}

function parseManifest(text: string): Manifest {
  const read = readManifest(text);
  if ("manifest" in read) return read.manifest;
  throw new Error(complaintsText("model.json", read.complaints));
}

const globPattern = (glob: string): RegExp =>
  new RegExp(
    `^${glob
      .replaceAll(/[.+^${}()|[\]\\]/g, "\\$&")
      .replaceAll("*", ".*")
      .replaceAll("?", ".")}$`,
    // Names may have line breaks in them.
    "s",
  );
