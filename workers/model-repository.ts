import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { defaultManifest, isModelName, type Manifest } from "@millrace/shared/manifest.js";
import { complaintsText, readManifest } from "@millrace/shared/read-manifest.js";
import { modelDigest } from "./model-digest.js";

/** A version in the model repository, checked as far as its files tell. */
export interface FoundVersion {
  model: string;
  version: string;
  digest: string;
  manifest: Manifest;
  /** The ONNX file. */
  file: string;
}

/** A folder that should be a model and cannot be served. */
export interface BadModel {
  model: string;
  version: string | null;
  reason: string;
}

const versionPattern = /^[1-9]\d{0,8}$/;

/**
 * Looks through `<dir>/<model>/<version>/model.onnx`. Folders without any version are no models and are passed over;
 * whatever else is wrong with one is told, and the others go on. Rejects where the folder itself cannot be read.
 */
export async function scanRepository(
  dir: string,
  globs: readonly string[],
): Promise<{ found: FoundVersion[]; bad: BadModel[] }> {
  const wanted = globs.map(globPattern);
  const found: FoundVersion[] = [];
  const bad: BadModel[] = [];
  const folders = (await readdir(dir, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  for (const { name: model } of folders.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (!wanted.some((pattern) => pattern.test(model))) continue;
    const folder = resolve(dir, model);
    const versions = (await readdir(folder)).filter((name) => versionPattern.test(name)).sort((a, b) => +a - +b);
    if (versions.length === 0) continue;
    if (!isModelName(model)) {
      bad.push({
        model,
        version: null,
        reason: "a model's name has lower-case letters, digits, '.', '_' and '-' only",
      });
      continue;
    }
    try {
      const manifest = await loadManifest(join(folder, "model.json"));
      for (const version of versions) {
        try {
          const digest = await modelDigest(join(folder, version));
          found.push({ model, version, digest, manifest, file: join(folder, version, "model.onnx") });
        } catch (fault) {
          bad.push({ model, version, reason: (fault as Error).message });
        }
      }
    } catch (fault) {
      bad.push({ model, version: null, reason: (fault as Error).message });
    }
  }
  return { found, bad };
}

async function loadManifest(file: string): Promise<Manifest> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (fault) {
    if ((fault as NodeJS.ErrnoException).code === "ENOENT") return defaultManifest();
    throw new Error(`model.json cannot be read (${(fault as NodeJS.ErrnoException).code})`);
  }
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
