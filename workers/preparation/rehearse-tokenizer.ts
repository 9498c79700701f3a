import { readFileSync, writeSync } from "node:fs";
import { Tokenizer } from "tokenizers";

/** The standard input of a rehearsal, as JSON. */
export interface Rehearsal {
  /** Content of the `tokenizer.json`. */
  text: string;
  /** Characters of the longest text. */
  longest: number;
}

/**
 * The program of a separate process, since the library aborts its process on some damaged files, at once or at the
 * first text. Prints each step before trying it, so that the last line names the step that aborted; a refusal follows
 * after a tab, and a last line `ready` means success.
 */
async function rehearse({ longest, text }: Rehearsal): Promise<void> {
  const file = JSON.parse(text) as Record<string, unknown>;
  for (const [place, nested] of Object.entries(nestedIn)) {
    for (const part of leaves(file[place], nested)) {
      if (!(await attempt(`${place} ${nameOf(part)}`, JSON.stringify({ ...bare, [place]: part }), longest))) return;
    }
  }
  if (await attempt(`model ${nameOf(file.model)}`, text, longest)) tell("ready\n");
}

/** Types of component that contain other components, with the field that holds them. */
const nestedIn = {
  normalizer: "normalizers",
  pre_tokenizer: "pretokenizers",
  post_processor: "processors",
  decoder: "decoders",
};

/** An empty tokenizer, to try one component in. */
const bare = { version: "1.0", model: { type: "BPE", vocab: {}, merges: [] } };

function leaves(component: unknown, nested: string): unknown[] {
  if (component === undefined || component === null) return [];
  const parts = (component as Record<string, unknown>)[nested];
  return Array.isArray(parts) ? parts.flatMap((part) => leaves(part, nested)) : [component];
}

function nameOf(component: unknown): string {
  const { type } = Object(component) as { type?: unknown };
  return typeof type === "string" ? `"${type.slice(0, 100)}"` : "without a type";
}

/** Opens a file and encodes difficult texts with it. The refusal of a text is not a fault of the file. */
async function attempt(name: string, file: string, longest: number): Promise<boolean> {
  tell(`${name}\n`);
  let tokenizer: Tokenizer;
  try {
    tokenizer = Tokenizer.fromString(file);
  } catch (fault) {
    tell(`\t${(fault as Error).message}\n`);
    return false;
  }
  tokenizer.setTruncation(32);
  tokenizer.disablePadding();
  for (const text of hardTexts(Math.min(longest, 20_000))) await tokenizer.encode(text).catch(() => undefined);
  for (const pair of ["", "a b"]) await tokenizer.encode("a b", pair).catch(() => undefined);
  return true;
}

/** Runs of one character before another: slow for patterns with much backtracking. */
function* hardTexts(length: number): Generator<string> {
  yield* ["", "a", "The cat's 12 hats, größe 日本 👩‍👩‍👧 e\u0301\ufb01.", "\u0000\u0001\u200b\ufeff\u2028"];
  for (const character of ["a", "A", "ü", "日", "1", " ", "\n", ".", "'", "_", "\u0301"]) {
    const run = character.repeat(Math.ceil(length / character.length));
    yield run;
    yield `${run}!`;
    yield `${run}b`;
  }
}

/** Synchronous, so that the line is written before the process may abort. */
const tell = (line: string): void => void writeSync(1, line);

await rehearse(JSON.parse(readFileSync(0, "utf8")));
