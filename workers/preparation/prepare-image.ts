import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { ImageInput } from "@millrace/shared/models/manifest-input.js";
import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import sharp, { type Sharp } from "sharp";
import { InputRefusedError, type Preparation } from "./preparation.js";

// A slot counts as one core, and caching is useless, since no two images of a slot are alike.
sharp.concurrency(1);
sharp.cache(false);

const decodeSeconds = 20;
/** Side in pixels of JPEG's coding blocks; a crop on this grid keeps their traces. */
const block = 8;

/** Decodes image files, turns them upright, scales them to the model's size and normalises them. */
export function imagePreparation(input: ImageInput, inputs: readonly TensorSpec[]): Preparation {
  const { channels, height, layout, tensor, width } = input;
  const depth = channels === "rgb" ? 3 : 1;
  const dtype = inputs[0]?.dtype === "uint8" ? "uint8" : "float32";
  const shape = layout === "nchw" ? [1, depth, height, width] : [1, height, width, depth];
  const tables = dtype === "float32" ? normalised(input, depth) : null;

  return {
    padding: null,
    async prepare([file]) {
      const pixels = await decode((file as PackedTensor).bytes, input);
      if (pixels.length !== depth * height * width) throw new Error("the decoded image has an unexpected size");
      const values = tables === null ? new Uint8Array(pixels.length) : new Float32Array(pixels.length);
      const plane = layout === "nchw" ? height * width : 1;
      const step = layout === "nchw" ? 1 : depth;
      for (let c = 0; c < depth; c++) {
        const table = tables?.[c];
        for (let p = 0; p < height * width; p++) {
          const value = pixels[p * depth + c] as number;
          values[c * plane + p * step] = table === undefined ? value : (table[value] as number);
        }
      }
      return [{ name: tensor, dtype, shape, bytes: new Uint8Array(values.buffer) }];
    },
  };
}

/** The normalised value for each of the 256 pixel values, by channel. */
function normalised({ mean, std }: ImageInput, depth: number): Float32Array[] {
  const of = (values: number | readonly number[], c: number) =>
    typeof values === "number" ? values : (values[c] as number);
  return Array.from({ length: depth }, (_, c) =>
    Float32Array.from({ length: 256 }, (_, value) => (value / 255 - of(mean, c)) / of(std, c)),
  );
}

/** The pixels at the model's size, with the channels of each pixel side by side. Rejects with an InputRefusedError. */
async function decode(file: Uint8Array, { channels, fit, height, max_pixels, width }: ImageInput): Promise<Buffer> {
  try {
    const image = sharp(file, { limitInputPixels: max_pixels, failOn: "error", pages: 1 })
      .timeout({ seconds: decodeSeconds })
      .autoOrient()
      .flatten({ background: "black" });
    const sized =
      fit === "crop"
        ? await cropped(image, file, width, height)
        : image.resize(width, height, { fit, background: "black" });
    return await sized
      .toColourspace(channels === "rgb" ? "srgb" : "b-w")
      .raw({ depth: "uchar" })
      .toBuffer();
  } catch (fault) {
    throw new InputRefusedError(`the image cannot be decoded: ${reasonOf(fault as Error)}`);
  }
}

/**
 * The centre of an image in its own pixels, from a corner on JPEG's grid; an image smaller than the crop is scaled up
 * first.
 */
async function cropped(image: Sharp, file: Uint8Array, width: number, height: number): Promise<Sharp> {
  const { autoOrient: own } = await sharp(file).metadata();
  if (own.width < width || own.height < height) return image.resize(width, height, { fit: "cover" });
  const middle = (have: number, want: number) => Math.floor((have - want) / 2 / block) * block;
  return image.extract({ left: middle(own.width, width), top: middle(own.height, height), width, height });
}

/** The first line of the library's message, without paths. */
const reasonOf = ({ message }: Error): string => (message.split("\n")[0] ?? "").replaceAll(/\/\S+/g, "").slice(0, 200);
