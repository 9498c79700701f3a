import type { TextInput } from "../models/manifest-input.js";
import { type Complaint, pointerSegment } from "../service/errors.js";
import { packStrings, packTensors } from "../tensors/tensor-pack.js";
import { describe, listedComplaints, type Packer } from "./packer.js";

/** Name of the tensor that holds a text. */
export const textTensor = "text";

/** A text without NUL and without surrounding space, as models see it. */
export const cleanText = (text: string): string => text.replaceAll("\0", "").trim();

/**
 * Packs a string, trimmed and without NUL, as a string tensor of shape [1], and `{ "text", "pair" }` as one of shape
 * [1, 2]; lengths are counted in characters, of each. Only a tokenizer takes a pair.
 */
export function textPacker(
  { max_length: longest, min_length: shortest, tokenizer }: TextInput,
  takesPairs = true,
): Packer {
  const faultOf = (text: unknown): string | null => {
    if (typeof text !== "string") return `expected a string, got ${describe(text)}`;
    if (/\p{Surrogate}/u.test(text)) return "expected a string of whole characters, got half a surrogate pair";
    const clean = cleanText(text);
    // A character has at most two units, so a text that is far too long is not counted.
    const length = clean.length > 2 * longest ? clean.length : [...clean].length;
    if (length >= shortest && length <= longest) return null;
    return `expected ${shortest} to ${longest} characters without the space around them, got ${length}`;
  };
  return (input) => {
    const complaints: Complaint[] = [];
    const complain = (pointer: string, detail: string | null) => {
      if (detail !== null) complaints.push({ detail, pointer });
    };
    const texts: unknown[] = [input];
    if (typeof input === "object" && input !== null && !Array.isArray(input)) {
      const { text, pair, ...unknown } = input as Record<string, unknown>;
      texts[0] = text;
      complain("/text", text === undefined ? "is missing: a string is expected" : faultOf(text));
      if (pair !== undefined && tokenizer === undefined) {
        complain("/pair", "this model takes one text: leave the pair out, or put both into `text`");
      } else if (pair !== undefined && !takesPairs) {
        complain("/pair", "a worker of an older release serves this model, which takes no pairs: try again later");
      } else if (pair !== undefined) {
        texts.push(pair);
        complain("/pair", faultOf(pair));
      }
      for (const name of Object.keys(unknown)) {
        complain(pointerSegment(name), `"${name}" is unknown; expected \`text\`, and \`pair\` where there is one`);
      }
    } else complain("", typeof input === "string" ? faultOf(input) : expected(input));
    if (complaints.length > 0) return { complaints: complaints.slice(0, listedComplaints) };
    const bytes = packStrings((texts as string[]).map(cleanText));
    // A single text keeps its form: jobs of older releases wait in queues.
    const shape = texts.length === 1 ? [1] : [1, texts.length];
    return { pack: packTensors([{ name: textTensor, dtype: "string", shape, bytes }]), rows: 1 };
  };
}

const expected = (input: unknown): string =>
  `expected a string or an object with \`text\` and \`pair\`, got ${describe(input)}`;
