import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";
import { inRoot } from "../harness/paths.js";
import { type Figure, figure, type Scenario } from "../harness/scenario.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

const model = "deepfake-image";
const side = 256;

/**
 * Latency for one caller of an image of one megapixel, as a file and in base64, beyond decoding it with bare `sharp`
 * and running the bare model; rounds of all three alternate.
 */
export const imagePath: Scenario = async ({ onClose, quick, say }) => {
  const file = await megapixel();
  say(`a JPEG of ${file.length} bytes`);
  const bare = await bareRun(file);
  const redis = await startRedis(onClose);
  const stack = await startMillrace(redis, { model, slots: 1, settings: { WORKER_MODELS: model } }, onClose);
  const { headers, path, port } = stack;
  const post = async (to: string, init: RequestInit) => {
    const response = await fetch(`http://127.0.0.1:${port}${to}`, { method: "POST", ...init });
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${to} answered ${response.status}: ${text.slice(0, 500)}`);
  };
  // Bytes after the end of a JPEG are ignored, and make each file a different input.
  let sent = 0;
  const another = () => Buffer.concat([file, Buffer.from(String(sent++).padStart(8, "0"))]);
  const ways: Record<string, () => Promise<void>> = {
    bare: () => bare(another()),
    "a file": () => {
      const body = new FormData();
      body.append("file", new Blob([new Uint8Array(another())]), "image.jpg");
      return post("/infer", { headers, body });
    },
    base64: () =>
      post(path, {
        headers: { ...headers, "content-type": "application/json", prefer: "wait=30" },
        body: JSON.stringify({ input: another().toString("base64"), cache: false }),
      }),
  };
  const p50s: Record<string, number[]> = {};
  for (let round = 0; round <= (quick ? 1 : 7); round++) {
    for (const [name, way] of Object.entries(ways)) {
      const times: number[] = [];
      for (let i = 0; i < (quick ? 5 : 60); i++) {
        const begun = performance.now();
        await way();
        times.push(performance.now() - begun);
      }
      // The first round is the warm-up.
      if (round > 0) p50s[name] = [...(p50s[name] ?? []), median(times)];
    }
  }
  const { bare: floors = [], ...ours } = p50s;
  const figures: Figure[] = [figure("bare sharp and bare run, p50", median(floors), "ms")];
  for (const [name, values] of Object.entries(ours)) {
    const beyond = median(values.map((value, i) => value - (floors[i] as number)));
    figures.push(figure(`as ${name}, p50`, median(values), "ms"));
    figures.push(figure(`as ${name}, p50 beyond bare`, beyond, "ms", { bound: "at most", value: 2 }));
  }
  return figures;
};

/** 1,024 by 1,024 pixels with as much detail as a photograph; the same each time. */
async function megapixel(): Promise<Buffer> {
  const size = 1024;
  const pixels = Buffer.alloc(size * size * 3);
  let state = 1;
  for (let i = 0; i < pixels.length; i++) {
    state = (state * 48_271) % 2_147_483_647;
    const p = Math.floor(i / 3);
    pixels[i] = 128 + 80 * Math.sin(p / 97) * Math.cos(p / size / 31) + (state % 24);
  }
  return sharp(pixels, { raw: { width: size, height: size, channels: 3 } })
    .jpeg({ quality: 90 })
    .toBuffer();
}

async function bareRun(file: Buffer): Promise<(file: Buffer) => Promise<void>> {
  sharp.concurrency(1);
  const session = await InferenceSession.create(inRoot(`models/${model}/1/model.onnx`), { intraOpNumThreads: 1 });
  const { height, width } = await sharp(file).metadata();
  const middle = { left: (width - side) >> 1, top: (height - side) >> 1, width: side, height: side };
  return async (given) => {
    const raw = await sharp(given).autoOrient().extract(middle).toColourspace("srgb").raw().toBuffer();
    const values = new Float32Array(raw.length);
    for (let c = 0; c < 3; c++) {
      for (let p = 0; p < side * side; p++) values[c * side * side + p] = raw[3 * p + c] as number;
    }
    await session.run({ image: new Tensor("float32", values, [1, 3, side, side]) });
  };
}
