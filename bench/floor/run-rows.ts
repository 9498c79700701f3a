import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { RunRowsOrder, RunRowsReply } from "./run-rows-spec.js";

/** The floor of inference: parses a body, and runs packed rows on one thread, as a slot does. */
const sessions = new Map<string, Promise<InferenceSession>>();

function sessionOf(model: string): Promise<InferenceSession> {
  const known = sessions.get(model);
  if (known !== undefined) return known;
  const opened = InferenceSession.create(model, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  sessions.set(model, opened);
  return opened;
}

async function carryOut(order: RunRowsOrder): Promise<RunRowsReply> {
  const session = await sessionOf(order.model);
  const input = session.inputNames[0] as string;
  const packed = readFileSync(order.packedFile);
  const rowBytes = 4 * order.features;
  const chunkBytes = order.chunkRows * rowBytes;
  const run = async (from: number, to: number) => {
    const bytes = new Uint8Array(packed.subarray(from, to));
    const values = new Float32Array(bytes.buffer);
    await session.run({ [input]: new Tensor("float32", values, [(to - from) / rowBytes, order.features]) });
  };
  const text = order.jsonFile === null ? null : readFileSync(order.jsonFile, "utf8");
  const begun = performance.now();
  if (text !== null) JSON.parse(text);
  const parsed = performance.now();
  const cpuBefore = process.cpuUsage();
  for (let left = order.rows * rowBytes, at = 0; left > 0; ) {
    const length = Math.min(left, chunkBytes, packed.length - at);
    await run(at, at + length);
    left -= length;
    at = at + length === packed.length ? 0 : at + length;
  }
  const runMs = performance.now() - parsed;
  const { system, user } = process.cpuUsage(cpuBefore);
  return { parseMs: parsed - begun, runMs, runCpuSeconds: (system + user) / 1e6 };
}

process.on("message", (order: RunRowsOrder) => {
  carryOut(order)
    .catch((fault: Error) => ({ fault: fault.message }))
    .then((reply) => process.send?.(reply));
});
process.on("disconnect", () => process.exit(0));
process.on("SIGINT", () => undefined);
