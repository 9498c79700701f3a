import type { TextInput } from "./manifest-input.js";
import { describe, type Packer } from "./packer.js";
import { packStrings, packTensors } from "./tensor-pack.js";

/** What a text is packed as, whatever the model makes of it. */
export const textTensor = "text";

/** A text as models see it: without NUL, and without the space around it. */
export const cleanText = (text: string): string => text.replaceAll("\0", "").trim();

/** Packs a string, trimmed and without NUL, as a string tensor of shape [1]; lengths are counted in characters. */
export function textPacker({ max_length: longest, min_length: shortest }: TextInput): Packer {
  const refuse = (detail: string) => ({ complaints: [{ detail, pointer: "" }] });
  return (input) => {
    if (typeof input !== "string") return refuse(`expected a string, got ${describe(input)}`);
    if (/\p{Surrogate}/u.test(input)) return refuse("expected a string of whole characters, got half a surrogate pair");
    const text = cleanText(input);
    // No character has more than two units, so what is far too long is not counted.
    const length = text.length > 2 * longest ? text.length : [...text].length;
    if (length < shortest || length > longest) {
      return refuse(`expected ${shortest} to ${longest} characters without the space around them, got ${length}`);
    }
    return {
      pack: packTensors([{ name: textTensor, dtype: "string", shape: [1], bytes: packStrings([text]) }]),
      rows: 1,
    };
  };
}
