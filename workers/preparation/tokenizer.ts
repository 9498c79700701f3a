import type { TextInput } from "@millrace/shared/models/manifest-input.js";
import type { Encoding, Tokenizer as Library, TruncationOptions } from "tokenizers";
import { InputRefusedError } from "./preparation.js";
import { readTokenizerFile, type TokenizerFile } from "./tokenizer-file.js";

type Settings = Pick<NonNullable<TextInput["tokenizer"]>, "max_tokens" | "special_tokens"> &
  Pick<TextInput, "max_length">;

/** The tokens of a text, padded as set in the tokenizer's file; the mask is 1 for tokens and 0 for padding. */
export interface Tokens {
  ids: number[];
  mask: number[];
  typeIds: number[];
}

export interface Tokenizer {
  /** Rejects with an InputRefusedError where the library refuses the text. */
  encode(text: string, pair: string | null): Promise<Tokens>;
  /** Padding for joining texts of different lengths, as set in the tokenizer's file. */
  readonly padding: { id: number; typeId: number; side: "left" | "right" };
}

/** Truncation of texts: the strategy of the file, and the smaller of the file's and the manifest's length. */
interface Cut {
  maxLength: number;
  strategy: "LongestFirst" | "OnlyFirst" | "OnlySecond";
  direction: "left" | "right";
}

/**
 * Opens a `tokenizer.json`, called `name` in messages, with the Rust library, so that the ids are the library's own.
 * Rejects with a reason that names no path.
 *
 * The library aborts the process where a stride is no shorter than the remaining text. Strides only produce windows,
 * which are not read here, so they are removed.
 */
export async function openTokenizer(file: string, name: string, settings: Settings): Promise<Tokenizer> {
  try {
    const { library, settings: own } = await readTokenizerFile(file, settings.max_length);
    return await tokenizerOf(library, own, settings);
  } catch (fault) {
    throw new Error(`${name} cannot be used as a tokenizer: ${(fault as Error).message}`);
  }
}

async function tokenizerOf(
  library: Library,
  { padding, truncation }: TokenizerFile,
  { max_tokens: maxTokens, special_tokens: special }: Settings,
): Promise<Tokenizer> {
  const cut: Cut = {
    maxLength: Math.min(maxTokens, truncation?.max_length ?? maxTokens),
    strategy: truncation?.strategy ?? "LongestFirst",
    direction: truncation?.direction === "Left" ? "left" : "right",
  };
  const options = { addSpecialTokens: special };
  const added = { single: 0, pair: 0 };
  if (special) {
    library.disableTruncation();
    added.single = specialTokens(await library.encode("", null, options));
    added.pair = specialTokens(await library.encode("", "", options));
  }
  if (cut.maxLength <= added.single) {
    throw new Error(`a length of ${cut.maxLength} tokens leaves no room beside ${added.single} special tokens`);
  }
  const { maxLength, ...how } = cut;
  library.setTruncation(maxLength, { ...how, stride: 0 } as unknown as TruncationOptions);

  const inTurn = oneAtATime();
  const encode = (text: string, pair: string | null): Promise<Encoding> => {
    announceMemory(text.length + (pair?.length ?? 0));
    return library.encode(text, pair, options);
  };
  const read = async (text: string, pair: string | null): Promise<Tokens> => {
    if (pair !== null) {
      if (maxLength < added.pair) throw new Error(`a pair has ${added.pair} special tokens, more than ${maxLength}`);
      await assertPairIsBearable(text, pair, { ...cut, maxLength: maxLength - added.pair }, encode);
    }
    const encoding = await encode(text, pair);
    return { ids: encoding.getIds(), mask: encoding.getAttentionMask(), typeIds: encoding.getTypeIds() };
  };
  return {
    async encode(text, pair) {
      try {
        if (text.length + (pair?.length ?? 0) <= longCharacters) return await read(text, pair);
        return await inTurn(() => read(text, pair));
      } catch (fault) {
        throw new InputRefusedError(`the tokenizer cannot read this text: ${(fault as Error).message}`);
      }
    },
    padding: {
      id: padding?.pad_id ?? 0,
      typeId: padding?.pad_type_id ?? 0,
      side: padding?.direction === "Left" ? "left" : "right",
    },
  };
}

/** Longer texts, in characters, are encoded one at a time, to limit the library's memory. */
const longCharacters = 10_000;

function oneAtATime(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const done = last.then(work, work);
    last = done.catch(() => undefined);
    return done;
  };
}

/** The number of special tokens of an encoding; the library counts padding among them. */
function specialTokens(encoding: Encoding): number {
  const mask = encoding.getAttentionMask();
  return encoding.getSpecialTokensMask().filter((special, i) => special === 1 && mask[i] === 1).length;
}

/**
 * An encoding lies outside the memory known to the garbage collector, up to some 100 bytes a character; thousands could
 * wait to be collected. An array of the same size makes the collector aware of it; the system backs the array with no
 * memory.
 */
function announceMemory(characters: number): void {
  if (characters > 1000) new ArrayBuffer(200 * characters);
}

/** Limit of the tokens that the library may hold for one pair: some 300 MB. */
const mostTokens = 2_000_000;

/** Most bytes that NFKC makes of one byte. */
const longestExpansion = 11;

/**
 * The library cuts both texts of a pair into parts of the maximum length, and joins each part of the one with each part
 * of the other: a few hundred kilobytes of text could need more memory than there is. Rejects in that case.
 */
async function assertPairIsBearable(
  text: string,
  pair: string,
  cut: Cut,
  encode: (text: string, pair: string) => Promise<Encoding>,
): Promise<void> {
  const most = (value: string): number => longestExpansion * Buffer.byteLength(value);
  if (joinedTokens(most(text), most(pair), cut) <= mostTokens) return;
  const counts: number[] = [];
  for (const [one, other] of [
    [text, ""],
    ["", pair],
  ] as const) {
    const alone = await encode(one, other);
    counts.push(alone.getLength() + alone.getOverflowing().reduce((sum, part) => sum + part.getLength(), 0));
  }
  const [first, second] = counts as [number, number];
  if (joinedTokens(first, second, cut) > mostTokens) throw new Error("the two texts are too long for a pair");
}

/** Number of tokens in all the joined parts of two texts with these numbers of tokens. */
function joinedTokens(first: number, second: number, { maxLength, strategy }: Cut): number {
  if (first + second <= maxLength) return 0;
  const rest = (other: number): number => Math.max(1, maxLength - other);
  if (strategy === "OnlyFirst") return Math.ceil(first / rest(second)) * maxLength;
  if (strategy === "OnlySecond") return Math.ceil(second / rest(first)) * maxLength;
  const half = Math.max(1, Math.floor(maxLength / 2));
  const [shorter, longer] = first < second ? [first, second] : [second, first];
  const kept = shorter > half ? half : rest(shorter);
  return Math.max(1, Math.ceil(shorter / half)) * Math.ceil(longer / kept) * maxLength;
}
