import { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import {
  decodeRun,
  encodeDone,
  encodeJsonFrame,
  type Frame,
  frameKinds,
  readFrames,
} from "@millrace/workers/runs/frames.js";
import type { LoadRequest } from "@millrace/workers/runs/load-request.js";

const runMs = 20;

/**
 * A slot that sleeps instead of computing, so that more workers than cores can be measured: the shared parts are then
 * the only limit.
 */
const pipe = new Socket({ fd: 3, readable: true, writable: true });
const spec = (name: string) => ({ name, dtype: "int64", shape: ["N", 1] });
let turn: Promise<void> = Promise.resolve();

async function handle(frame: Frame): Promise<void> {
  if (frame.kind === frameKinds.run) {
    const { packs, runId } = decodeRun(frame.body);
    await delay(runMs);
    const item = { ok: true, text: '{"y":[[0]]}', confidence: Number.NaN, inferenceMs: runMs, batchRows: 1 };
    pipe.write(
      encodeDone(
        runId,
        null,
        packs.map(() => item),
      ),
    );
  } else if (frame.kind === frameKinds.load) {
    const { key } = JSON.parse(frame.body.toString()) as LoadRequest;
    const facts = { joining: { mode: "off", reason: "" }, proofFault: false, drawsNumbers: false };
    const reply = { key, ok: true, inputs: [spec("x")], outputs: [spec("y")], ...facts };
    pipe.write(encodeJsonFrame(frameKinds.loaded, reply));
  }
}

readFrames(pipe, (frame) => {
  turn = turn.then(() => handle(frame));
});
pipe.on("end", () => process.exit(0));
pipe.on("error", () => process.exit(0));
process.on("SIGINT", () => undefined);
process.on("SIGTERM", () => undefined);
