import { chmod, mkdir, open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";

/** A secret in a file that only its owner can read: the kept one, or a new one where none is kept or it is damaged. */
export async function keepSecret(file: string, pattern: RegExp, make: () => string): Promise<string> {
  const kept = await readFile(file, "utf8").catch((fault: NodeJS.ErrnoException) => {
    if (fault.code === "ENOENT") return "";
    throw fault;
  });
  if (pattern.test(kept.trim())) {
    await chmod(file, 0o600);
    return kept.trim();
  }
  const made = make();
  await writePrivate(file, `${made}\n`);
  return made;
}

/** Writes a file that only its owner can read; it is never seen half written. */
export async function writePrivate(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const unfinished = `${file}.new`;
  const handle = await open(unfinished, "w", 0o600);
  try {
    await handle.chmod(0o600);
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(unfinished, file);
}
