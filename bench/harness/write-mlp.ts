import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { inRoot } from "./paths.js";

/** Writes a multilayer perceptron with made weights; see test/fixtures/write-mlp.js. */
export async function writeMlp(
  file: string,
  sizes: { inputs: number; layers: number; width: number; outputs: number },
): Promise<void> {
  const settings = Object.entries(sizes).map(([name, value]) => `${name}=${value}`);
  await promisify(execFile)(process.execPath, [inRoot("test/fixtures/write-mlp.js"), file, ...settings]);
}
