import { readFileSync, writeSync } from "node:fs";
import { Tokenizer } from "tokenizers";

/** What a rehearsal is given on its standard input. */
export interface Rehearsal {
  /** The file's content. */
  text: string;
  /** Characters of the longest text that is ever asked. */
  longest: number;
}

/**
 * The program of a process of its own, in which the library may end: it does so on some damaged files, at once or at
 * the first text. Tells line by line what it is about to try, so that the last line names what it ended on; a refusal
 * follows after a tab, and `ready` is the last line where all went well.
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

/** Where each sort of component has those that it consists of. */
const nestedIn = {
  normalizer: "normalizers",
  pre_tokenizer: "pretokenizers",
  post_processor: "processors",
  decoder: "decoders",
};

/** A tokenizer that does nothing, to try one component in. */
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

/** Opens a file and has it read what is hard to read. A text that is refused is none of the file's faults. */
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

/** Runs of one character before another: what a pattern that goes back over a text too often is too slow for. */
function* hardTexts(length: number): Generator<string> {
  yield* ["", "a", "The cat's 12 hats, größe 日本 👩‍👩‍👧 e\u0301\ufb01.", "\u0000\u0001\u200b\ufeff\u2028"];
  for (const character of ["a", "A", "ü", "日", "1", " ", "\n", ".", "'", "_", "\u0301"]) {
    const run = character.repeat(Math.ceil(length / character.length));
    yield run;
    yield `${run}!`;
    yield `${run}b`;
  }
}

/** At once, and whole before the process may end. */
const tell = (line: string): void => void writeSync(1, line);

await rehearse(JSON.parse(readFileSync(0, "utf8")));
