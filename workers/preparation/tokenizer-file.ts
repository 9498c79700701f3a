import { isUtf8 } from "node:buffer";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Tokenizer as Library } from "tokenizers";
import { z } from "zod";
import type { Rehearsal } from "./rehearse-tokenizer.js";

const count = z.number().int().nonnegative();

/** The settings of a tokenizer.json that are checked here; the rest is checked by the library. */
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

/** A text with more padding would be mostly padding, and would fill the memory of a slot. */
const longestPadding = 1_000_000;

/**
 * The Rust library's tokenizer of a `tokenizer.json`, and the settings in the file; no text is longer than `longest`.
 * Rejects with a reason that names no path: an unreadable file, a component refused by the library, an unsupported
 * setting.
 */
export async function readTokenizerFile(
  file: string,
  longest: number,
): Promise<{ library: Library; settings: TokenizerFile }> {
  const text = await readText(file);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("it is not valid JSON");
  }
  const settings = settingsSchema.safeParse(json);
  if (!settings.success) {
    const [issue] = settings.error.issues;
    throw new Error(`/${issue?.path.join("/")}: ${issue?.message}`);
  }
  checkSettings(settings.data);
  const Tokenizer = await loadLibrary();
  await rehearse({ text, longest });
  return { library: Tokenizer.fromString(text), settings: settings.data };
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

function checkSettings({ model, padding }: TokenizerFile): void {
  if ((model.dropout ?? 0) > 0) {
    throw new Error(`"dropout": ${model.dropout} draws other ids for the same text each time; set it to null`);
  }
  const fixed = padding?.strategy === undefined || padding.strategy === "BatchLongest" ? 0 : padding.strategy.Fixed;
  if (Math.max(fixed, padding?.pad_to_multiple_of ?? 0) > longestPadding) {
    throw new Error(`its padding is longer than ${longestPadding} tokens`);
  }
}

/** Loaded only for text models. Without a binary for the platform, the library's own message lists paths. */
async function loadLibrary(): Promise<typeof Library> {
  try {
    return (await import("tokenizers")).Tokenizer;
  } catch {
    throw new Error(`the tokenizers library has no binary for ${process.platform} on ${process.arch}`);
  }
}

const rehearsalTimeoutMs = 60_000;

/** Has another process open and use the file first, since the library aborts its process on some damaged files. */
async function rehearse(rehearsal: Rehearsal): Promise<void> {
  const program = fileURLToPath(new URL("./rehearse-tokenizer.js", import.meta.url));
  const { late, stderr, stdout } = await new Promise<{ stdout: string; stderr: string; late: boolean }>((resolve) => {
    const options = { timeout: rehearsalTimeoutMs, killSignal: "SIGKILL", maxBuffer: 10_000_000 } as const;
    const child = execFile(process.execPath, [program], options, (fault, stdout, stderr) =>
      resolve({ stdout, stderr, late: fault?.killed === true }),
    );
    // A process that ends before it has read everything has printed its reason.
    child.stdin?.on("error", () => undefined).end(JSON.stringify(rehearsal));
  });
  const told = stdout.split("\n").filter((line) => line !== "");
  const last = told.at(-1) ?? "file";
  if (last === "ready") return;
  if (last.startsWith("\t")) {
    throw new Error(
      `the tokenizers library does not read its ${told.at(-2)}:${last.replaceAll("\t", " ").slice(0, 300)}`,
    );
  }
  const panic = /panicked at [^\n]*\n([^\n]*)/.exec(stderr)?.[1] ?? (late ? "it took too long" : "no reason given");
  throw new Error(`the tokenizers library fails on its ${last}: ${panic.replaceAll(/\/\S+/g, "").slice(0, 300)}`);
}
