import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { pipeline } from "node:stream/promises";

/**
 * The digest that names the exact bytes of a version: SHA-256 over the lines `<sha256 of a file>  <path>`, sorted by
 * path, of every file in its folder; that is, of what `find -type f | sort | xargs sha256sum` prints there. Rejects
 * for a link, because what it leads to can change unseen.
 */
export async function modelDigest(folder: string): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths: string[] = [];
  for (const entry of entries) {
    const path = relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/");
    if (entry.isFile()) paths.push(path);
    else if (!entry.isDirectory()) throw new Error(`${path} is a link or a device; a version holds plain files only`);
  }
  const total = createHash("sha256");
  for (const path of paths.sort()) {
    const hash = createHash("sha256");
    await pipeline(createReadStream(join(folder, path)), hash);
    total.update(`${hash.digest("hex")}  ./${path}\n`);
  }
  return `sha256:${total.digest("hex")}`;
}
