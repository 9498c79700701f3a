import type { Announcement, TensorSpec } from "@millrace/shared/models/announcement.js";
import { type Feature, featuresOf } from "@millrace/shared/packing/pack-tabular.js";

/** An input small enough for a command line. */
export interface Trial {
  model: string;
  input: unknown;
  /** Made from the input's schema, so that the model may not take it; else the model's own sample. */
  made: boolean;
}

const preferred = "intrusion-random-forest";
const longestInput = 4096;
const mostElements = 1000;
/** A white picture of 8 by 8. */
const picture = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAD0lEQVR42mP4jwMwDC0JALoev0GJ6La7AAAAAElFTkSuQmCC";

/** Trials of served models, the best first: samples of their authors, then made inputs. */
export function findTrials(served: readonly Announcement[]): Trial[] {
  const named = served.filter(({ model }) => model === preferred);
  const models = [...named, ...served.filter((announcement) => !named.includes(announcement))];
  const sampled = models.flatMap(({ manifest, model }) =>
    manifest.samples[0] === undefined ? [] : [{ model, input: manifest.samples[0].input, made: false }],
  );
  const made = models.flatMap((announcement) => {
    const input = makeInput(announcement);
    return input === undefined ? [] : [{ model: announcement.model, input, made: true }];
  });
  return [...sampled, ...made].filter(({ input }) => JSON.stringify(input).length <= longestInput);
}

/** The `curl` line that asks for the prediction; without a key it takes that of the variable `API_KEY`. */
export function trialCommand(
  { apiKey, apiUrl }: { apiKey: string | null; apiUrl: string },
  { input, model }: Pick<Trial, "input" | "model">,
): string {
  // The shell expands a variable within double quotes only.
  const key = apiKey === null ? '"Authorization: Bearer $API_KEY"' : `'Authorization: Bearer ${apiKey}'`;
  const body = JSON.stringify({ input }).replaceAll("'", String.raw`'\''`);
  return (
    `curl -s '${apiUrl}/v1/models/${model}/predictions' -H ${key} ` +
    `-H 'Content-Type: application/json' -H 'Prefer: wait=10' -d '${body}'`
  );
}

/** The first trial that succeeds: a made input is tried on the API first, where there is a key for it. */
export async function chooseTrial(
  served: readonly Announcement[],
  caller: { apiKey: string | null; apiUrl: string },
): Promise<Trial | null> {
  for (const trial of findTrials(served)) {
    if (!trial.made || caller.apiKey === null || (await succeeds(caller.apiUrl, caller.apiKey, trial))) return trial;
  }
  return null;
}

async function succeeds(apiUrl: string, apiKey: string, { input, model }: Trial): Promise<boolean> {
  try {
    const response = await fetch(`${apiUrl}/v1/models/${model}/predictions`, {
      method: "POST",
      headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json", prefer: "wait=10" },
      body: JSON.stringify({ input, cache: false }),
      signal: AbortSignal.timeout(15_000),
    });
    return ((await response.json()) as { status?: unknown }).status === "succeeded";
  } catch {
    return false;
  }
}

/** An input that the schema takes; undefined where none can be made. */
function makeInput({ inputs, manifest }: Announcement): unknown {
  switch (manifest.kind) {
    case "tensor":
      return inputs.every((spec) => elementsOf(spec) <= mostElements)
        ? Object.fromEntries(inputs.map((spec) => [spec.name, fill(spec.dtype, sizesOf(spec))]))
        : undefined;
    case "tabular":
      return Object.fromEntries(featuresOf(manifest).map((feature) => [feature.name, featureValue(feature)]));
    case "text":
      return "hello, world ".repeat(1 + Math.ceil(manifest.input.min_length / 12)).slice(0, manifest.input.max_length);
    case "image":
      return picture;
  }
}

const sizesOf = ({ shape }: TensorSpec): number[] => shape.map((size) => (typeof size === "number" ? size : 1));
const elementsOf = (spec: TensorSpec): number => sizesOf(spec).reduce((product, size) => product * size, 1);

function fill(dtype: string, [size, ...inner]: readonly number[]): unknown {
  if (size !== undefined) return Array.from({ length: size }, () => fill(dtype, inner));
  return dtype === "string" ? "text" : dtype === "bool" ? false : 0;
}

function featureValue({ default: preset, max, min, type, values }: Feature): unknown {
  if (preset !== undefined) return preset;
  if (type === "category") return values?.[0];
  if (type === "date") return "2024-01-01T12:00:00Z";
  return Math.min(Math.max(0, min ?? 0), max ?? Number.POSITIVE_INFINITY);
}
