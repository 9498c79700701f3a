import { disableTypes, imageSize, types } from "image-size";
import type { ImageInput, imageFormats } from "../models/manifest-input.js";
import { packTensors } from "../tensors/tensor-pack.js";
import { describe, type Packed, type Packer } from "./packer.js";

/** An image file as a tensor: its bytes, uint8 [length]. */
export const imageTensor = "image";

type Format = (typeof imageFormats)[number];

// Headers of other formats are not read.
disableTypes(types.filter((type) => type !== "jpg" && type !== "png" && type !== "webp"));

const formatOf: Record<string, Format> = { jpg: "jpeg", png: "png", webp: "webp" };
const dataUrl = /^data:(image\/[a-z0-9.+-]{1,40})?;base64,/i;

/**
 * Packs a file given as base64, as a data URL or as bytes. Its header has format and size, so that an image too large
 * when decoded is refused without decoding. Faults that only decoding shows are left to the worker.
 */
export function imagePacker(input: ImageInput): Packer {
  const refuse = (detail: string): Packed => ({ complaints: [{ detail, pointer: "" }] });
  return (given) => {
    const file =
      given instanceof Uint8Array ? given : typeof given === "string" ? decodeBase64(given, input.max_bytes) : null;
    if (file === null) return refuse(`expected an image in base64 or as a data URL, got ${describe(given)}`);
    if (typeof file === "string") return refuse(file);
    if (file.length > input.max_bytes)
      return refuse(`may have ${input.max_bytes} bytes at the most, has ${file.length}`);
    const header = readHeader(file);
    if (header === null || !input.formats.includes(header.format)) {
      return refuse(`expected an image of the format ${input.formats.join(", ")}`);
    }
    const { height, width } = header;
    if (!(width * height <= input.max_pixels)) {
      return refuse(`may have ${input.max_pixels} pixels at the most, has ${width} × ${height}`);
    }
    return { pack: packTensors([{ name: imageTensor, dtype: "uint8", shape: [file.length], bytes: file }]), rows: 1 };
  };
}

/** The bytes of base64 or of a data URL, or a sentence with the fault. */
function decodeBase64(text: string, largestBytes: number): Uint8Array | string {
  const start = text.startsWith("data:") ? dataUrl.exec(text)?.[0].length : 0;
  if (start === undefined) return "expected a data URL of the form data:image/png;base64,…";
  const base64 = start === 0 ? text : text.slice(start);
  if (base64.length > Math.ceil(largestBytes / 3) * 4 + 4) return `may have ${largestBytes} bytes at the most`;
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return "expected an image in base64 or as a data URL, got another string";
  return Buffer.from(base64, "base64");
}

function readHeader(file: Uint8Array): { format: Format; width: number; height: number } | null {
  try {
    const { height, type, width } = imageSize(file);
    const format = formatOf[type ?? ""];
    return format === undefined ? null : { format, width, height };
  } catch {
    // The library throws for unknown and damaged files.
    return null;
  }
}
