import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Stack } from "./start-stack.js";

/** A sample small enough for a command line. */
interface Trial {
  model: string;
  input: unknown;
}

const preferred = "intrusion-random-forest";
const longestInput = 4096;

/** The models that a worker serves, by name; null where its port is off. An API may learn of them a moment later. */
export async function servedModels(workerPort: number): Promise<string[] | null> {
  if (workerPort === 0) return null;
  const response = await fetch(`http://127.0.0.1:${workerPort}/ready`);
  const { models = [] } = (await response.json()) as { models?: { model: string }[] };
  return [...new Set(models.map(({ model }) => model))].sort();
}

/** A served model with a short sample in its manifest; null where there is none. */
export async function findTrial(modelsDir: string, served: readonly string[]): Promise<Trial | null> {
  const models = served.includes(preferred) ? [preferred, ...served] : served;
  for (const model of models) {
    const input = await sampleInput(join(modelsDir, model, "model.json"));
    if (input !== undefined && JSON.stringify(input).length <= longestInput) return { model, input };
  }
  return null;
}

/** The `curl` line that asks for the prediction. */
export function trialCommand({ apiKey, apiUrl }: Pick<Stack, "apiKey" | "apiUrl">, { input, model }: Trial): string {
  // The shell expands a variable within double quotes only.
  const key = apiKey === null ? '"Authorization: Bearer $API_KEY"' : `'Authorization: Bearer ${apiKey}'`;
  const body = JSON.stringify({ input }).replaceAll("'", String.raw`'\''`);
  return (
    `curl -s '${apiUrl}/v1/models/${model}/predictions' -H ${key} ` +
    `-H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '${body}'`
  );
}

async function sampleInput(file: string): Promise<unknown> {
  try {
    const { samples } = JSON.parse(await readFile(file, "utf8")) as { samples?: { input: unknown }[] };
    return samples?.[0]?.input;
  } catch {
    return undefined;
  }
}
