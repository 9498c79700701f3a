import { join } from "node:path";
import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { TextInput } from "@millrace/shared/models/manifest-input.js";
import { type PackedTensor, unpackStrings } from "@millrace/shared/tensors/tensor-pack.js";
import { InputRefusedError, type Preparation } from "./preparation.js";
import type { Tokenizer, Tokens } from "./tokenizer.js";

type TokenizerSettings = NonNullable<TextInput["tokenizer"]>;

/** Passes texts on as strings, or as the ids of the version's tokenizer. */
export async function textPreparation(
  { max_length, tensor, tokenizer }: TextInput,
  inputs: readonly TensorSpec[],
  folder: string,
): Promise<Preparation> {
  if (tokenizer !== undefined) {
    // Loaded on demand: it is a native library.
    const { openTokenizer } = await import("./tokenizer.js");
    const file = join(folder, tokenizer.file);
    return tokenizing(tokenizer, await openTokenizer(file, tokenizer.file, { ...tokenizer, max_length }), inputs);
  }
  const flat = inputs[0]?.shape.length === 1;
  return {
    padding: null,
    prepare: ([text]) => {
      const { bytes, dtype, shape } = text as PackedTensor;
      if (shape.length !== 1) throw new InputRefusedError("this version takes one text, not a pair");
      return [{ name: tensor as string, dtype, shape: flat ? shape : [...shape, 1], bytes }];
    },
  };
}

/** One tensor made of a text: its name and dtype in the ONNX file, its values, and its padding value. */
interface Feed {
  name: string;
  dtype: "int32" | "int64";
  pad: number;
  valuesOf: (tokens: Tokens) => readonly number[];
}

function tokenizing(settings: TokenizerSettings, tokenizer: Tokenizer, inputs: readonly TensorSpec[]): Preparation {
  const feeds = feedsOf(settings, tokenizer, inputs);
  return {
    atOnce: true,
    async prepare([packed]) {
      const [text, pair = null] = unpackStrings((packed as PackedTensor).bytes) as [string, string?];
      const tokens = await tokenizer.encode(text, pair);
      if (!tokens.mask.includes(1)) throw new InputRefusedError("the tokenizer finds no token in this text");
      return feeds.map(({ dtype, name, valuesOf }) => {
        const values = valuesOf(tokens);
        return { name, dtype, shape: [1, values.length], bytes: packIntegers(dtype, values) };
      });
    },
    padding:
      settings.mask === undefined
        ? null
        : {
            side: tokenizer.padding.side,
            lengthOf: widthOf,
            widen: (tensors, tokens) =>
              tensors.map((tensor, i) => widened(tensor, tokens, (feeds[i] as Feed).pad, tokenizer.padding.side)),
          },
  };
}

function feedsOf(settings: TokenizerSettings, tokenizer: Tokenizer, inputs: readonly TensorSpec[]): Feed[] {
  const { padding } = tokenizer;
  const wanted: [string | undefined, number, (tokens: Tokens) => readonly number[]][] = [
    [settings.ids, settings.pad_id ?? padding.id, ({ ids }) => ids],
    [settings.mask, 0, ({ mask }) => mask],
    [settings.type_ids, padding.typeId, ({ typeIds }) => typeIds],
    [settings.position_ids, 0, ({ mask }) => positionsOf(mask)],
  ];
  return wanted.flatMap(([name, pad, valuesOf]) => {
    if (name === undefined) return [];
    const dtype = inputs.find((input) => input.name === name)?.dtype === "int32" ? "int32" : "int64";
    return [{ name, dtype, pad, valuesOf }];
  });
}

/** Tokens are counted from 0, on whichever side the padding is; padding has position 0. */
function positionsOf(mask: readonly number[]): number[] {
  let next = 0;
  return mask.map((bit) => (bit === 1 ? next++ : 0));
}

function packIntegers(dtype: Feed["dtype"], values: readonly number[]): Uint8Array {
  return new Uint8Array((dtype === "int32" ? Int32Array.from(values) : BigInt64Array.from(values, BigInt)).buffer);
}

const widthOf = (tensors: readonly PackedTensor[]): number => tensors[0]?.shape[1] as number;

/** Integers [rows, n] as [rows, width], padded with `pad` on one side. */
function widened(tensor: PackedTensor, width: number, pad: number, side: "left" | "right"): PackedTensor {
  const [rows, have] = tensor.shape as [number, number];
  const bytes = packIntegers(tensor.dtype as Feed["dtype"], new Array<number>(rows * width).fill(pad));
  const size = bytes.length / (rows * width);
  const begin = side === "left" ? width - have : 0;
  for (let r = 0; r < rows; r++) {
    bytes.set(tensor.bytes.subarray(size * r * have, size * (r + 1) * have), size * (r * width + begin));
  }
  return { ...tensor, shape: [rows, width], bytes };
}
