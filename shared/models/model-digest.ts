import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { listVersionFiles, type VersionFile } from "./version-files.js";

/** SHA-256 in hex of each file of a version, by its path, in their order. */
export type FileHashes = ReadonlyMap<string, string>;

/** Reads and hashes the files of a version. */
export async function hashFiles(folder: string, files: readonly VersionFile[]): Promise<FileHashes> {
  const hashes = new Map<string, string>();
  for (const { path } of files) {
    const hash = createHash("sha256");
    await pipeline(createReadStream(join(folder, path)), hash);
    hashes.set(path, hash.digest("hex"));
  }
  return hashes;
}

/**
 * The digest of a version's files: SHA-256 over the lines `<sha256 of a file>  <path>`, sorted by path, of every file
 * in its folder; that is, of the output of `find -type f | sort | xargs sha256sum` there.
 */
export function digestOfFiles(hashes: FileHashes): string {
  const total = createHash("sha256");
  for (const [path, hash] of hashes) total.update(`${hash}  ./${path}\n`);
  return `sha256:${total.digest("hex")}`;
}

/** The digest of a version's folder. Rejects as `listVersionFiles` does. */
export async function modelDigest(folder: string): Promise<string> {
  return digestOfFiles(await hashFiles(folder, await listVersionFiles(folder)));
}
