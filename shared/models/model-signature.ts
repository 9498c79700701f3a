import { createPublicKey, type KeyObject, sign, verify } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * Files of a signed version: the list with a line `<sha256>  <path>` for each file, as `sha256sum -c` reads it; the
 * signature.
 */
export const hashListName = "manifest.sha256";
export const signatureName = "manifest.sha256.sig";

/** The content of a signature. */
export interface SignedFiles {
  model: string;
  version: string;
  /** SHA-256 in hex of every file in the version's folder, by path. */
  hashes: ReadonlyMap<string, string>;
  /** SHA-256 of the `model.json` beside the version's folder, where the version has none of its own. */
  manifestOutside: string | null;
}

const outsidePath = "../model.json";

function hashList({ hashes, manifestOutside }: SignedFiles): string {
  const lines = [...hashes].filter(([path]) => path !== hashListName && path !== signatureName);
  if (manifestOutside !== null) lines.push([outsidePath, manifestOutside]);
  return lines
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, hash]) => `${hash}  ${path}\n`)
    .join("");
}

/** The signed text includes the name, so that a signed version cannot pass as another model or version. */
const signedText = ({ model, version }: SignedFiles, list: string): Buffer =>
  Buffer.from(`millrace model version\n${model}/${version}\n${list}`);

/** Writes the list of hashes and an Ed25519 signature of it into the version's folder; resolves to the paths in it. */
export async function signVersion(folder: string, files: SignedFiles, key: KeyObject): Promise<string[]> {
  const list = hashList(files);
  await writeFile(join(folder, hashListName), list);
  await writeFile(join(folder, signatureName), `${sign(null, signedText(files, list), key).toString("base64")}\n`);
  return list.split("\n").flatMap((line) => line.split("  ")[1] ?? []);
}

/**
 * Rejects with the reason unless one of the keys has signed exactly these files, no more and no fewer, as this version
 * of this model.
 */
export async function verifySignature(folder: string, files: SignedFiles, keys: readonly KeyObject[]): Promise<void> {
  if (!files.hashes.has(hashListName) || !files.hashes.has(signatureName)) {
    throw new Error("it is not signed, and MODEL_PUBLIC_KEYS is set: sign it with `npm run cli -- models sign`");
  }
  const list = await readFile(join(folder, hashListName), "utf8");
  const signature = Buffer.from((await readFile(join(folder, signatureName), "utf8")).trim(), "base64");
  if (!keys.some((key) => verify(null, signedText(files, list), key, signature))) {
    throw new Error("its signature is by none of MODEL_PUBLIC_KEYS, or for another model or version");
  }
  const actual = hashList(files);
  if (actual === list) return;
  const signed = new Set(list.split("\n"));
  const differing = actual.split("\n").find((line) => !signed.has(line)) ?? "";
  const missing = list.split("\n").find((line) => !actual.includes(line)) ?? "";
  throw new Error(`it is not what was signed: ${(differing || missing).split("  ")[1]} is changed, added or missing`);
}

const spkiPrefix = Buffer.from("302a300506032b6570032100", "hex");

/**
 * An Ed25519 public key from its 32 bytes in base64, or from those with the header of an SPKI. Throws for anything
 * else.
 */
export function parsePublicKey(text: string): KeyObject {
  const bytes = Buffer.from(text, "base64");
  const isSpki = bytes.length === 44 && bytes.subarray(0, 12).equals(spkiPrefix);
  if ((bytes.length !== 32 && !isSpki) || !/^[A-Za-z0-9+/_-]+={0,2}$/.test(text)) {
    throw new Error("must be Ed25519 public keys: 32 bytes in base64 each, separated by commas");
  }
  const der = isSpki ? bytes : Buffer.concat([spkiPrefix, bytes]);
  return createPublicKey({ key: der, format: "der", type: "spki" });
}

/** A public key as `parsePublicKey` takes it. */
export const publicKeyText = (key: KeyObject): string =>
  createPublicKey(key.export({ type: "spki", format: "pem" }))
    .export({ type: "spki", format: "der" })
    .subarray(12)
    .toString("base64");
