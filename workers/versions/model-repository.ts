import { createHash, type KeyObject } from "node:crypto";
import { lstat, readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { defaultManifest, isModelName, type Manifest } from "@millrace/shared/models/manifest.js";
import { digestOfFiles, hashFiles } from "@millrace/shared/models/model-digest.js";
import { type SignedFiles, verifySignature } from "@millrace/shared/models/model-signature.js";
import { complaintsText, readManifest } from "@millrace/shared/models/read-manifest.js";
import { listVersionFiles, stampOf, type VersionFile } from "@millrace/shared/models/version-files.js";

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
  model: string;
  version: string | null;
  reason: string;
}

const versionPattern = /^[1-9]\d{0,8}$/;
const manifestName = "model.json";
const largestManifestBytes = 16 * 1024 * 1024;

/**
 * Lists `<dir>/<model>/<version>/`. Folders without a version are no models and are skipped. A model with a fault is
 * listed as bad, without effect on others. Rejects where the folder itself cannot be read.
 */
export async function listVersions(
  dir: string,
  globs: readonly string[],
): Promise<{ folders: VersionFolder[]; bad: BadModel[] }> {
  const wanted = globs.map(globPattern);
  const folders: VersionFolder[] = [];
  const bad: BadModel[] = [];
  const entries = (await readdir(dir, { withFileTypes: true })).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const { name: model } = entry;
    if (!wanted.some((pattern) => pattern.test(model))) continue;
    if (entry.isSymbolicLink() && isModelName(model)) {
      bad.push({ model, version: null, reason: "the model is a link; a model is a plain folder" });
    }
    if (!entry.isDirectory()) continue;
    const home = resolve(dir, model);
    const names = await readdir(home).catch((fault: NodeJS.ErrnoException) => {
      // A folder that disappears meanwhile is empty; one that cannot be read must not unload its versions.
      if (fault.code === "ENOENT") return [];
      throw fault;
    });
    const versions = names.filter((name) => versionPattern.test(name)).sort((a, b) => +a - +b);
    if (versions.length === 0) continue;
    if (!isModelName(model)) {
      const reason = "a model's name has lower-case letters, digits, '.', '_' and '-' only";
      bad.push({ model, version: null, reason });
      continue;
    }
    for (const version of versions) {
      const folder = join(home, version);
      try {
        const files = await listVersionFiles(folder);
        const own = files.some(({ path }) => path === manifestName);
        const manifestFile = join(own ? folder : home, manifestName);
        const manifestStamp = await stampOfManifest(manifestFile);
        folders.push({
          ...{ model, version, folder, files },
          manifestFile: manifestStamp === null ? null : manifestFile,
          stamp: `${stampOf(files)}\n${manifestStamp}`,
        });
      } catch (fault) {
        bad.push({ model, version, reason: reasonOf(fault) });
      }
    }
  }
  return { folders, bad };
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
  );
