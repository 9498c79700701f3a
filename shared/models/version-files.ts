import { lstat, readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";

/** One file of a version, by its path from the version's folder with `/` between names. */
export interface VersionFile {
  path: string;
  size: number;
  /** Changes with the file, as far as its metadata show. */
  stamp: string;
}

const largestCount = 1000;
const deepest = 8;
const largestBytes = 16 * 1024 ** 3;

/**
 * Every file of a version, sorted by path. Rejects for anything but plain files, because the target of a link can
 * change unseen and belong to anybody, and for more than 1,000 files, 16 GiB or 8 levels of folders.
 */
export async function listVersionFiles(folder: string): Promise<VersionFile[]> {
  if (!(await lstat(folder)).isDirectory()) throw new Error("the version is a link; a version is a plain folder");
  const files: VersionFile[] = [];
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/");
    if (entry.isDirectory()) {
      if (path.split("/").length > deepest) throw new Error(`${path} is more than ${deepest} folders deep`);
      continue;
    }
    if (!entry.isFile()) throw new Error(`${path} is a link or a device; a version holds plain files only`);
    const { ctimeMs, ino, mtimeMs, size } = await lstat(join(folder, path));
    bytes += size;
    files.push({ path, size, stamp: `${size}:${mtimeMs}:${ctimeMs}:${ino}` });
    if (files.length > largestCount) throw new Error(`it has more than ${largestCount} files`);
    if (bytes > largestBytes) throw new Error(`it has more than ${largestBytes} bytes`);
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** A text that changes with any of the files, as far as their metadata show. */
export const stampOf = (files: readonly VersionFile[]): string =>
  files.map(({ path, stamp }) => `${path}:${stamp}`).join("\n");
