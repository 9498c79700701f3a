import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import type { Tokenizer as Library } from "tokenizers";
import { z } from "zod";

const count = z.number().int().nonnegative();

/** What of a tokenizer.json is looked at here; all else is the library's to judge. */
const settingsSchema = z.looseObject({
  truncation: z
    .looseObject({
      direction: z.enum(["Left", "Right"]).default("Right"),
      max_length: count,
      strategy: z.enum(["LongestFirst", "OnlyFirst", "OnlySecond"]),
    })
    .nullish(),
  padding: z
    .looseObject({
      direction: z.enum(["Left", "Right"]).default("Right"),
      pad_id: count,
      pad_to_multiple_of: count.nullish(),
      pad_type_id: count,
      strategy: z.union([z.literal("BatchLongest"), z.strictObject({ Fixed: count })]),
    })
    .nullish(),
  model: z.looseObject({ dropout: z.number().nullish() }),
});

export type TokenizerFile = z.infer<typeof settingsSchema>;

/** Beyond it a padded text would be mostly padding, and the memory of a slot would go into it. */
const longestPadding = 1_000_000;

/**
 * The Rust library's tokenizer of a `tokenizer.json`, and the settings in the file. Rejects with the reason, which names no
 * path: what cannot be read, the component that the library does not know, settings that cannot be kept.
 */
export async function readTokenizerFile(file: string): Promise<{ library: Library; settings: TokenizerFile }> {
  const text = await readText(file);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("it is not valid JSON");
  }
  const load = await loader();
  let library: Library;
  try {
    library = load(text);
  } catch (fault) {
    throw new Error(unsupported(json, load) ?? (fault as Error).message);
  }
  const settings = settingsSchema.safeParse(json);
  if (!settings.success) {
    const [issue] = settings.error.issues;
    throw new Error(`/${issue?.path.join("/")}: ${issue?.message}`);
  }
  const { model, padding } = settings.data;
  if ((model.dropout ?? 0) > 0) {
    throw new Error(`"dropout": ${model.dropout} draws other ids for the same text each time; set it to null`);
  }
  const length = padding?.strategy === undefined || padding.strategy === "BatchLongest" ? 0 : padding.strategy.Fixed;
  if (Math.max(length, padding?.pad_to_multiple_of ?? 0) > longestPadding) {
    throw new Error(`its padding is longer than ${longestPadding} tokens`);
  }
  return { library, settings: settings.data };
}

async function readText(file: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (fault) {
    throw new Error(`it cannot be read (${(fault as NodeJS.ErrnoException).code ?? "unknown fault"})`);
  }
  if (!isUtf8(bytes)) throw new Error("it is not UTF-8");
  return bytes.toString();
}

/** The library is loaded where a text needs it only; its fault, where it has no binary, lists paths. */
async function loader(): Promise<(text: string) => Library> {
  try {
    const { Tokenizer } = await import("tokenizers");
    return (text) => Tokenizer.fromString(text);
  } catch {
    throw new Error(`the tokenizers library has no binary for ${process.platform} on ${process.arch}`);
  }
}

const nestedIn: Record<string, string | null> = {
  normalizer: "normalizers",
  pre_tokenizer: "pretokenizers",
  post_processor: "processors",
  decoder: "decoders",
};

/** The library says at which character a file stops making sense to it, not what it does not know: each part is tried alone. */
function unsupported(json: unknown, load: (text: string) => Library): string | null {
  if (typeof json !== "object" || json === null) return null;
  const file = json as Record<string, unknown>;
  for (const [place, nested] of Object.entries(nestedIn)) {
    for (const part of leaves(file[place], nested as string)) {
      const fault = faultOf({ ...emptyFile, [place]: part }, load);
      if (fault !== null) return unread(place, part);
    }
  }
  if (file.model === undefined) return "it has no model";
  // A model is judged without the tokens that others may lack.
  return faultOf({ ...emptyFile, model: file.model }, load) === null ? null : unread("model", file.model);
}

const emptyFile = { version: "1.0", model: { type: "BPE", vocab: {}, merges: [] } };

function leaves(component: unknown, nested: string): unknown[] {
  if (component === undefined || component === null) return [];
  const parts = (component as Record<string, unknown>)[nested];
  return Array.isArray(parts) ? parts.flatMap((part) => leaves(part, nested)) : [component];
}

function faultOf(file: object, load: (text: string) => Library): string | null {
  try {
    load(JSON.stringify(file));
    return null;
  } catch (fault) {
    return (fault as Error).message;
  }
}

function unread(place: string, component: unknown): string {
  const type = (component as Record<string, unknown>).type;
  const name = typeof type === "string" ? `"${type.slice(0, 100)}"` : "without a type";
  return `the tokenizers library does not read its ${place} ${name}`;
}
