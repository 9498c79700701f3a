import type { Dirent } from "node:fs";
import { opendir } from "node:fs/promises";
import { join } from "node:path";
import { type ForeignModel, mayBeForeign, readHead, recognizeForeign } from "@millrace/shared/models/foreign-model.js";
import { isModelName } from "@millrace/shared/models/manifest.js";
import { shownName } from "./shown-name.js";

/** Entries of a folder that are looked at, and inner folders; a model's folder has far fewer. */
const mostEntries = 1000;
const mostFolders = 20;
const mostHeads = 20;

/** A version's folder: a whole number from 1 to 999999999. */
export const versionPattern = /^[1-9]\d{0,8}$/;
/** What people call a version beside good ones; other names may be versions that are still being written. */
const almostVersion = /^(?:(?:v|ver|version)[-_. ]?\d[\d.]*|0\d*|\d+(?:\.\d+)+|\d{10,})$/i;
const unfinished = /^\.|\.(?:tmp|part|partial|new)$|~$/i;

/** Whether a model's folder with good versions may have a fault beside them, by the names in it. */
export const mayBeMislaid = (names: readonly string[]): boolean =>
  names.some((name) => name === "model.onnx" || almostVersion.test(name));

/**
 * Why a folder that looks like a model is not laid out as one, with the remedy: an ONNX file outside of a version's
 * folder, a version's folder by another name, a file of another library. null for a folder without a model, and for a
 * good one. `versions` are its good ones, beside which only unmistakable faults count.
 */
export async function layoutFault(name: string, home: string, versions: readonly string[]): Promise<string | null> {
  const entries = await listSome(home);
  const target = isModelName(name) ? name : suggestedName(name);
  const next = `${target}/${Math.max(0, ...versions.map(Number)) + 1}/model.onnx`;
  const onnx = entries.find((entry) => entry.isFile() && (versions.length === 0 ? isOnnx(entry) : isModelFile(entry)));
  if (onnx !== undefined) {
    const above = versionPattern.test(name) ? ". Or is MODELS_DIR the folder of one model? It is the folder above" : "";
    return `${shownName(onnx.name)} lies outside of a version's folder: move it to ${next}${above}`;
  }
  const folders = entries.filter((entry) => entry.isDirectory() && isCandidate(entry, versions)).slice(0, mostFolders);
  const inner = await Promise.all(
    folders.map(async ({ name: folder }) => [folder, await listSome(join(home, folder))]),
  );
  for (const [folder, files] of inner as [string, Dirent[]][]) {
    if (!files.some((file) => file.isFile() && isOnnx(file))) continue;
    const number = /[1-9]\d{0,8}/.exec(folder)?.[0];
    const to =
      number === undefined || versions.includes(number) ? next.replace("/model.onnx", "") : `${target}/${number}`;
    return `${shownName(folder)} is no version: a version's folder is a whole number, such as 1. Rename it to ${to}`;
  }
  if (versions.length > 0) return null;
  const places = [[".", entries] as const, ...(inner as [string, Dirent[]][])];
  for (const [folder, files] of places) {
    const foreign = await findForeign(join(home, folder), files);
    if (foreign !== null) {
      const path = folder === "." ? shownName(foreign.name) : `${shownName(folder)}/${shownName(foreign.name)}`;
      return `${path} is ${foreign.what}; Millrace serves ONNX. Export it to ${next}: ${foreign.remedy}`;
    }
  }
  return null;
}

/** Why a file that lies in the models folder itself is no model, with the remedy; null for a file without a model. */
export async function strayFault(name: string, file: string): Promise<string | null> {
  const target = `${suggestedName(name.replace(/\.[^.]*$/, ""))}/1/model.onnx`;
  if (/\.onnx$/i.test(name)) return `it is a file; a model is a folder: move it to ${target}`;
  // Settings and notes of any kind may lie here.
  if (!mayBeForeign(name) || /\.(json|txt|bin|model)$/i.test(name)) return null;
  const foreign = recognizeForeign(name, await readHead(file));
  return foreign === null
    ? null
    : `it is ${foreign.what}; Millrace serves ONNX. Export it to ${target}: ${foreign.remedy}`;
}

/** Why a folder's name is no model's, with a name that would be. */
export const nameFault = (name: string): string =>
  `it is not a model's name: 1 to 64 lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit. ` +
  `Rename the folder, such as to ${suggestedName(name)}`;

function suggestedName(name: string): string {
  const plain = name
    .normalize("NFKD")
    .toLowerCase()
    .replaceAll(/[^a-z0-9._-]+/g, "-");
  return (
    plain
      .replace(/^[^a-z0-9]+/, "")
      .slice(0, 64)
      .replace(/-+$/, "") || "my-model"
  );
}

const isOnnx = ({ name }: Dirent): boolean => /\.onnx$/i.test(name) && !unfinished.test(name);
const isModelFile = ({ name }: Dirent): boolean => name === "model.onnx";

const isCandidate = ({ name }: Dirent, versions: readonly string[]): boolean =>
  versions.length > 0 ? almostVersion.test(name) : !unfinished.test(name) && !versionPattern.test(name);

async function findForeign(
  folder: string,
  entries: readonly Dirent[],
): Promise<(ForeignModel & { name: string }) | null> {
  const files = entries.filter((entry) => entry.isFile() && mayBeForeign(entry.name) && !unfinished.test(entry.name));
  for (const { name } of files.slice(0, mostHeads)) {
    const foreign = recognizeForeign(name, await readHead(join(folder, name)));
    if (foreign !== null) return { ...foreign, name };
  }
  return null;
}

/** Some entries of a folder, in order of their names; none where it cannot be read. */
async function listSome(folder: string): Promise<Dirent[]> {
  const entries: Dirent[] = [];
  try {
    for await (const entry of await opendir(folder)) {
      entries.push(entry);
      if (entries.length === mostEntries) break;
    }
  } catch {
    return [];
  }
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}
