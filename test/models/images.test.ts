import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { TestStack } from "../support/stack/stack.js";

const fixture = (dtype: string) => fileURLToPath(new URL(`../fixtures/models/echo-image-${dtype}/1`, import.meta.url));
const image = (input: object) => ({ kind: "image", input: { tensor: "x", width: 4, height: 2, ...input } });

/** Models by name; each returns the tensor made of its image. */
const models: Record<string, [string, object]> = {
  plain: ["uint8", image({ layout: "nhwc", max_bytes: 20_000, max_pixels: 1_000_000 })],
  planes: ["float32", image({ layout: "nchw", mean: [0, 0.5, 1], std: [1, 0.5, 0.25] })],
  gray: ["float32", image({ channels: "gray", std: 1 / 255 })],
  contained: ["uint8", image({ layout: "nhwc", width: 4, height: 4, fit: "contain" })],
  cropped: ["uint8", image({ layout: "nhwc", width: 16, height: 16, fit: "crop" })],
  "only-png": ["uint8", image({ layout: "nhwc", formats: ["png"] })],
};

// Four by two pixels, all different.
const pixels = Array.from({ length: 8 }, (_, p) => [p * 30, 255 - p * 20, (p * 67) % 256]);
const raw = (values: readonly (readonly number[])[], width: number) =>
  sharp(Buffer.from(values.flat()), {
    raw: { width, height: values.length / width, channels: values[0]?.length as 3 | 4 },
  });
const nested = (values: readonly (readonly number[])[], width: number) =>
  Array.from({ length: values.length / width }, (_, y) => values.slice(y * width, (y + 1) * width));

describe("image models", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [], workers: 0 });
    for (const [name, [dtype, manifest]] of Object.entries(models)) {
      await cp(fixture(dtype), join(stack.modelsDir, name, "1"), { recursive: true });
      await writeFile(join(stack.modelsDir, name, "model.json"), JSON.stringify(manifest));
    }
    await stack.startWorker();
  });
  afterAll(() => stack?.close());

  const tensorOf = async (model: string, file: Buffer | string) => {
    const { body } = await stack.predict(model, typeof file === "string" ? file : file.toString("base64"));
    expect(body.status, JSON.stringify(body).slice(0, 500)).toBe("succeeded");
    return body.output.y[0];
  };
  const refused = async (model: string, input: unknown) => {
    const answer = await stack.predict(model, input instanceof Buffer ? input.toString("base64") : input);
    const body = assertProblem(answer, 422, "invalid_input");
    expect(pointersOf(body)).toEqual(["/input"]);
    return body.detail as string;
  };

  test("PNG and WebP, in base64 or as a data URL, are decoded to their exact pixels", async () => {
    const png = await raw(pixels, 4).png().toBuffer();
    const webp = await raw(pixels, 4).webp({ lossless: true }).toBuffer();
    const expected = nested(pixels, 4);
    expect(await tensorOf("plain", png)).toEqual(expected);
    expect(await tensorOf("plain", webp)).toEqual(expected);
    expect(await tensorOf("plain", `data:image/png;base64,${png.toString("base64")}`)).toEqual(expected);
    expect(await tensorOf("plain", `data:;base64,${webp.toString("base64")}`)).toEqual(expected);
  });

  test("a JPEG of one colour keeps it, whatever its size", async () => {
    const file = await raw(
      Array.from({ length: 400 }, () => [200, 100, 50]),
      20,
    )
      .jpeg({ quality: 100 })
      .toBuffer();
    for (const pixel of (await tensorOf("plain", file)).flat()) {
      for (const [c, value] of [200, 100, 50].entries()) expect(Math.abs(pixel[c] - value)).toBeLessThanOrEqual(3);
    }
  });

  test("values are normalised by channel, put into planes, or converted to gray, as the manifest says", async () => {
    const png = await raw(pixels, 4).png().toBuffer();
    const planes: number[][][] = await tensorOf("planes", png);
    const [means, deviations] = [
      [0, 0.5, 1],
      [1, 0.5, 0.25],
    ] as [number[], number[]];
    for (const [c, plane] of planes.entries()) {
      const wanted = pixels.map(
        (pixel) => ((pixel[c] as number) / 255 - (means[c] as number)) / (deviations[c] as number),
      );
      for (const [i, value] of plane.flat().entries()) expect(value).toBeCloseTo(wanted[i] as number, 5);
    }
    const shades = Array.from({ length: 8 }, (_, p) => [p * 36, p * 36, p * 36]);
    const gray: number[][][] = await tensorOf("gray", await raw(shades, 4).png().toBuffer());
    for (const [p, value] of gray.flat(2).entries()) expect(Math.abs(value - p * 36)).toBeLessThanOrEqual(1);
  });

  test("an image is rotated by its EXIF orientation", async () => {
    // Stored as two by four, to be rotated by a quarter turn.
    const stored = Array.from({ length: 8 }, (_, p) => pixels[3 - (p >> 1) + (p % 2) * 4] as number[]);
    const rotated = (orientation: number) => raw(stored, 2).withMetadata({ orientation });
    const upright = nested(stored, 2);
    const wanted = upright[0]?.map((_, x) => upright.map((row) => row[x])) ?? [];
    expect(await tensorOf("plain", await rotated(5).png().toBuffer())).toEqual(wanted);
    const quarter = wanted.map((row) => [...row].reverse());
    expect(await tensorOf("plain", await rotated(6).png().toBuffer())).toEqual(quarter);
    expect(await tensorOf("plain", await rotated(6).webp({ lossless: true }).toBuffer())).toEqual(quarter);
  });

  test("a contained image gets black borders, and transparent pixels become black", async () => {
    const seeThrough = pixels.map((pixel, p) => [...pixel, p === 0 ? 0 : 255]);
    const wanted = nested(
      pixels.map((pixel, p) => (p === 0 ? [0, 0, 0] : pixel)),
      4,
    );
    expect(await tensorOf("plain", await raw(seeThrough, 4).png().toBuffer())).toEqual(wanted);
    const black = Array.from({ length: 4 }, () => [0, 0, 0]);
    const contained = await tensorOf("contained", await raw(pixels, 4).png().toBuffer());
    expect(contained).toEqual([black, ...nested(pixels, 4), black]);
  });

  test("a crop is the centre at its own resolution, on the grid of JPEG's blocks", async () => {
    const large = Array.from({ length: 50 * 37 }, (_, p) => [p % 251, (p * 3) % 253, (p * 7) % 241]);
    const rows = nested(large, 50);
    const cut = rows.slice(8, 24).map((row) => row.slice(16, 32));
    expect(await tensorOf("cropped", await raw(large, 50).png().toBuffer())).toEqual(cut);
    const small = await tensorOf("cropped", await raw(pixels, 4).png().toBuffer());
    expect([small.length, small[0].length]).toEqual([16, 16]);
  });

  test("invalid input, other formats, large files and decompression bombs are refused before decoding", async () => {
    for (const input of [7, null, ["x"], "", "no image!", "data:image/png,abc", Buffer.from("hello world, no image")]) {
      await refused("plain", input);
    }
    const gif = await raw(pixels, 4).gif().toBuffer();
    expect(await refused("plain", gif)).toMatch(/jpeg, png, webp/);
    expect(
      await refused("plain", Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="2"/>')),
    ).toMatch(/format/);
    expect(await refused("only-png", await raw(pixels, 4).webp().toBuffer())).toMatch(/of the format png/);
    expect(await refused("plain", Buffer.alloc(20_001))).toMatch(/20000 bytes/);
    // About 140 bytes that claim 900 million pixels, and 4 KB that really are two million.
    expect(await refused("plain", pngOf(30_000, 30_000))).toMatch(/1000000 pixels.*30000 × 30000/);
    const flat = sharp({ create: { width: 2000, height: 1000, channels: 3, background: "white" } });
    const bomb = await flat.png({ compressionLevel: 9 }).toBuffer();
    expect(bomb.length).toBeLessThan(20_000);
    expect(await refused("plain", bomb)).toMatch(/1000000 pixels/);
  });

  test("a file found to be broken only while decoding fails alone, as invalid_input", async () => {
    const whole = await raw(
      Array.from({ length: 10_000 }, (_, p) => [p % 256, (p * 7) % 256, 0]),
      100,
    )
      .jpeg()
      .toBuffer();
    const broken = [whole.subarray(0, whole.length / 2), pngOf(100, 100)];
    const answers = await Promise.all(
      [...broken, whole, whole].map((file) => stack.predict("plain", file.toString("base64"))),
    );
    const [cut, empty, ...good] = answers.map(({ body }) => body);
    for (const body of [cut, empty]) {
      expect(body, JSON.stringify(body)).toMatchObject({
        status: "failed",
        output: null,
        error: { code: "invalid_input" },
      });
      expect(body.error.detail).toMatch(/cannot be decoded/);
    }
    expect(good.map(({ status }) => status)).toEqual(["succeeded", "succeeded"]);
  });

  test("GET /v1/models returns formats and limits", async () => {
    const { body } = await stack.get("/v1/models/plain");
    expect(body.input).toEqual({
      kind: "image",
      formats: ["jpeg", "png", "webp"],
      max_bytes: 20_000,
      max_pixels: 1_000_000,
      forms: ["base64", "data URL"],
    });
  });
});

/** A PNG with only header and end: a size without pixels. */
function pngOf(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    check.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, check]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  return Buffer.concat([
    signature,
    chunk("IHDR", header),
    chunk("IDAT", Buffer.alloc(0)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}
