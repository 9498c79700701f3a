import { PassThrough } from "node:stream";
import {
  decodeDone,
  decodeRun,
  encodeDone,
  encodeFrame,
  encodeJsonFrame,
  encodeRun,
  type Frame,
  frameKinds,
  readFrames,
} from "@millrace/workers/runs/frames.js";
import { describe, expect, test } from "vitest";

/** The frames read from a stream of these chunks. */
async function framesOf(chunks: readonly Buffer[]): Promise<Frame[]> {
  const stream = new PassThrough();
  const frames: Frame[] = [];
  readFrames(stream, ({ body, kind }) => frames.push({ kind, body: Buffer.from(body) }));
  for (const chunk of chunks) stream.write(chunk);
  stream.end();
  await new Promise((resolve) => stream.once("end", resolve));
  return frames;
}

describe("frames between a worker and its slots", () => {
  const bodies = ["", "a", "größe", "x".repeat(300)].map((text) => Buffer.from(text));
  const wire = Buffer.concat(bodies.map((body, i) => encodeFrame(i + 1, body)));
  const expected = bodies.map((body, i) => ({ kind: i + 1, body }));

  test("are read the same wherever the stream is cut", async () => {
    for (let at = 0; at <= wire.length; at++) {
      expect(await framesOf([wire.subarray(0, at), wire.subarray(at)]), `cut at ${at}`).toEqual(expected);
    }
  });

  test("are read the same if every byte arrives separately", async () => {
    expect(await framesOf([...wire].map((byte) => Buffer.from([byte])))).toEqual(expected);
  });

  test("are read in order if thousands arrive in one chunk", async () => {
    const count = 5000;
    const many = Buffer.concat(Array.from({ length: count }, (_, i) => encodeJsonFrame(frameKinds.load, { i })));
    const frames = await framesOf([many]);
    expect(frames.map(({ body }) => JSON.parse(body.toString()).i)).toEqual(Array.from({ length: count }, (_, i) => i));
  });

  test("are held back until complete", async () => {
    expect(await framesOf([wire.subarray(0, wire.length - 1)])).toEqual(expected.slice(0, -1));
  });

  test("carry a run's packs to a slot as unchanged bytes", async () => {
    const packs = [Buffer.alloc(70_000, 5), Buffer.alloc(0), Buffer.from([0, 255, 1]), Buffer.alloc(70_000, 7)];
    packs.push(Buffer.from([2]));
    const [frame] = await framesOf(encodeRun({ runId: 4_294_967_295, modelKey: 3, joins: true, packs }));
    expect(frame?.kind).toBe(frameKinds.run);
    expect(decodeRun(frame?.body as Buffer)).toEqual({ runId: 4_294_967_295, modelKey: 3, joins: true, packs });
  });

  test("carry back one item per input, also failures and texts beyond ASCII", async () => {
    const items = [
      { ok: true, text: '{"y":"日本"}', confidence: 0.5, inferenceMs: 1.25, batchRows: 3 },
      { ok: false, text: "", confidence: Number.NaN, inferenceMs: 0, batchRows: 1 },
    ];
    for (const misfit of [null, 'output "größe" had 3 entries for 7 rows']) {
      const [frame] = await framesOf([encodeDone(9, misfit, items)]);
      expect(frame?.kind).toBe(frameKinds.done);
      expect(decodeDone(frame?.body as Buffer)).toEqual({ runId: 9, misfit, items });
    }
  });
});
