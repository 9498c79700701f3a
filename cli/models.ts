import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { lstat, readdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isModelName } from "@millrace/shared/models/manifest.js";
import { hashFiles } from "@millrace/shared/models/model-digest.js";
import { publicKeyText, signVersion } from "@millrace/shared/models/model-signature.js";
import { listVersionFiles } from "@millrace/shared/models/version-files.js";

const versionPattern = /^[1-9]\d{0,8}$/;

/**
 * Signs a version's folder, or every version in a model's folder, with the Ed25519 private key in a PEM file. `say`
 * gets a line for each version. Rejects for any other folder, and for a key of another kind.
 */
export async function signModels(folder: string, keyFile: string, say: (line: string) => void): Promise<void> {
  const key = readPrivateKey(await readKeyFile(keyFile));
  const path = resolve(folder);
  const isVersion = versionPattern.test(basename(path)) && isModelName(basename(dirname(path)));
  const names = isVersion ? [] : (await readdir(path)).filter((name) => versionPattern.test(name));
  const folders = isVersion ? [path] : names.map((name) => join(path, name));
  if (folders.length === 0 || !isModelName(basename(dirname(folders[0] as string)))) {
    throw new Error(`${folder} is neither a model's folder nor a version's: expected <model> or <model>/<version>`);
  }
  for (const version of folders) say(await signOne(version, key));
  say(`MODEL_PUBLIC_KEYS=${publicKeyText(createPublicKey(key))}`);
}

/**
 * Makes an Ed25519 key pair: writes the private key to a new PEM file and says the public key for workers. Rejects if
 * the file exists.
 */
export async function makeSigningKey(file: string, say: (line: string) => void): Promise<void> {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  await writeFile(file, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600, flag: "wx" });
  say(`MODEL_PUBLIC_KEYS=${publicKeyText(publicKey)}`);
}

async function signOne(folder: string, key: KeyObject): Promise<string> {
  const model = basename(dirname(folder));
  const version = basename(folder);
  const files = await listVersionFiles(folder);
  const hashes = await hashFiles(folder, files);
  const outside = hashes.has("model.json") ? null : await hashOutside(join(dirname(folder), "model.json"));
  const signed = await signVersion(folder, { model, version, hashes, manifestOutside: outside }, key);
  return `signed ${model}/${version}: ${signed.join(", ")}`;
}

async function hashOutside(file: string): Promise<string | null> {
  const stat = await lstat(file).catch(() => null);
  if (stat === null) return null;
  if (!stat.isFile()) throw new Error(`${file} is not a regular file`);
  return createHash("sha256")
    .update(await readFile(file))
    .digest("hex");
}

async function readKeyFile(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (fault) {
    const { code, message } = fault as NodeJS.ErrnoException;
    throw new Error(`Cannot read the key file ${file}: ${code === "ENOENT" ? "it does not exist." : message}`);
  }
}

function readPrivateKey(pem: string): KeyObject {
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== "ed25519") throw new Error("the key must be an Ed25519 private key in PEM");
  return key;
}
