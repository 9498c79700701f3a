import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** A shipped model's manifest, as JSON. */
// biome-ignore lint/suspicious/noExplicitAny: JSON of a file
export const manifestOf = (model: string): any =>
  JSON.parse(readFileSync(fileURLToPath(new URL(`../../../models/${model}/model.json`, import.meta.url)), "utf8"));

/** A synthetic flow in feature order; each `change` gives other first features. */
export function flow(change = 0): number[] {
  const manifest = manifestOf("intrusion-random-forest");
  const values = manifest.input.features.map((name: string) => manifest.samples[1].input[name] as number);
  values[0] = change % 65_536;
  values[1] = change;
  return values;
}
