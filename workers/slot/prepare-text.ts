import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import type { TensorSpec } from "@millrace/shared/announcement.js";
import type { TextInput } from "@millrace/shared/manifest-input.js";
import { type PackedTensor, unpackStrings } from "@millrace/shared/tensor-pack.js";
import { InputRefusedError, type Preparation } from "./preparation.js";

type TokenizerSettings = NonNullable<TextInput["tokenizer"]>;

/** Hands texts on as strings, or as the ids that the version's tokenizer makes of them. */
export async function textPreparation(
  { tensor, tokenizer }: TextInput,
  inputs: readonly TensorSpec[],
  folder: string,
): Promise<Preparation> {
  if (tokenizer !== undefined)
    return tokenizing(tokenizer, await openTokenizer(join(folder, tokenizer.file), tokenizer.file));
  const flat = inputs[0]?.shape.length === 1;
  return {
    padding: null,
    prepare: ([text]) => {
      const { bytes, dtype, shape } = text as PackedTensor;
      return [{ name: tensor as string, dtype, shape: flat ? shape : [...shape, 1], bytes }];
    },
  };
}

function tokenizing(settings: TokenizerSettings, tokenizer: Tokenizer): Preparation {
  const { ids, mask, max_tokens: maxTokens, pad_id: padId, special_tokens: special, type_ids: typeIds } = settings;
  const names = [ids, mask, typeIds].filter((name) => name !== undefined);
  const tensorsOf = (rows: readonly (readonly number[])[]): PackedTensor[] => {
    const width = Math.max(...rows.map((row) => row.length));
    return names.map((name) => {
      const elements = new BigInt64Array(rows.length * width);
      if (name === ids) elements.fill(BigInt(padId));
      rows.forEach((row, r) => {
        if (name === mask) elements.fill(1n, r * width, r * width + row.length);
        if (name !== ids) return;
        row.forEach((id, i) => {
          elements[r * width + i] = BigInt(id);
        });
      });
      return { name, dtype: "int64", shape: [rows.length, width], bytes: new Uint8Array(elements.buffer) };
    });
  };
  return {
    prepare([text]) {
      const rows = unpackStrings((text as PackedTensor).bytes).map((value) => {
        const row = cutTo(maxTokens, tokenizer, value, special);
        if (row.length === 0) throw new InputRefusedError("the tokenizer finds nothing in this text");
        return row;
      });
      return tensorsOf(rows);
    },
    padding:
      mask === undefined
        ? null
        : {
            lengthOf: widthOf,
            widen: (input, tokens) => input.map((t) => widened(t, tokens, t.name === ids ? padId : 0)),
          },
  };
}

/** Ids of a text; where they are too many, those of the text itself are cut off, and not the special ones around them. */
function cutTo(maxTokens: number, tokenizer: Tokenizer, text: string, special: boolean): number[] {
  const { ids } = tokenizer.encode(text, { add_special_tokens: special });
  if (ids.length <= maxTokens) return ids;
  const own: number[] = special ? tokenizer.encode(text, { add_special_tokens: false }).ids : ids;
  const around = ids.length - own.length;
  let before = 0;
  while (before < around && !own.every((id, i) => id === ids[before + i])) before += 1;
  const after = around - before;
  const kept = own.slice(0, Math.max(0, maxTokens - around));
  return [...ids.slice(0, before), ...kept, ...ids.slice(ids.length - after)].slice(0, maxTokens);
}

const widthOf = (input: readonly PackedTensor[]): number => input[0]?.shape[1] as number;

/** int64 [rows, n] as [rows, width], filled up with `pad`. */
function widened(tensor: PackedTensor, width: number, pad: number): PackedTensor {
  const [rows, have] = tensor.shape as [number, number];
  const elements = new BigInt64Array(rows * width).fill(BigInt(pad));
  const bytes = new Uint8Array(elements.buffer);
  for (let r = 0; r < rows; r++) bytes.set(tensor.bytes.subarray(8 * r * have, 8 * (r + 1) * have), 8 * r * width);
  return { ...tensor, shape: [rows, width], bytes };
}

async function openTokenizer(file: string, name: string): Promise<Tokenizer> {
  try {
    return new Tokenizer(JSON.parse(await readFile(file, "utf8")), {});
  } catch (fault) {
    const { code, message } = fault as NodeJS.ErrnoException;
    throw new Error(
      `${name} cannot be used as a tokenizer: ${code === undefined ? message : `it cannot be read (${code})`}`,
    );
  }
}
