import { Socket } from "node:net";
import { Worker } from "node:worker_threads";
import {
  decodeLaidRun,
  decodeRun,
  encodeDone,
  encodeFrame,
  encodeJsonFrame,
  encodeMisfit,
  type Frame,
  frameHead,
  frameKinds,
  readFrames,
} from "../runs/frames.js";
import type { LoadOrder } from "../runs/load-request.js";
import { readTable } from "../runs/shared-file.js";
import { LoadedModel } from "./loaded-model.js";

/**
 * A slot: the process that holds ONNX sessions and runs one model at a time. It has no access to Redis; a crash costs
 * its worker one slot. It ends with its worker, even from within a run that never returns.
 */
const pipe = new Socket({ fd: 3, readable: true, writable: true });
const sharedFile = 4;
const models = new Map<number, LoadedModel>();
let turn: Promise<void> = Promise.resolve();

new Worker(new URL("./watchdog.js", import.meta.url), {
  stdin: false,
  resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1 },
});

function loaded(modelKey: number): LoadedModel {
  const model = models.get(modelKey);
  if (model === undefined) throw new Error(`run of a model that is not loaded: ${modelKey}`);
  return model;
}

/** Reports another run of the model for the same request, and the misfit seen so far. */
const tellNextRun = ({ misfit }: LoadedModel): void => {
  pipe.write(encodeFrame(frameKinds.nextRun, encodeMisfit(misfit)));
};

/** In parts, to spare a copy. */
function replyTable(misfit: string | null, outputs: Buffer): void {
  const why = encodeMisfit(misfit);
  pipe.cork();
  pipe.write(frameHead(frameKinds.doneTable, why.length + outputs.length));
  pipe.write(why);
  pipe.write(outputs);
  pipe.uncork();
}

async function handle(frame: Frame): Promise<void> {
  if (frame.kind === frameKinds.run) {
    const { joins, modelKey, packs, runId } = decodeRun(frame.body);
    const model = loaded(modelKey);
    const items = await model.run(packs, joins, () => tellNextRun(model));
    pipe.write(encodeDone(runId, model.misfit, items));
    return;
  }
  if (frame.kind === frameKinds.runTable) {
    const { joins, modelKey, packs } = decodeRun(frame.body);
    const model = loaded(modelKey);
    const outputs = await model.runTable(packs[0] as Buffer, joins, () => tellNextRun(model));
    replyTable(model.misfit, outputs);
    return;
  }
  if (frame.kind === frameKinds.runTableLaid) {
    const { headLength, joins, length, modelKey } = decodeLaidRun(frame.body);
    const model = loaded(modelKey);
    // Aligns the numbers after the head for typed arrays.
    const pack = readTable(sharedFile, length, 8 - (headLength % 8));
    const outputs = await model.runTable(pack, joins, () => tellNextRun(model));
    replyTable(model.misfit, outputs);
    return;
  }
  const request = JSON.parse(frame.body.toString()) as LoadOrder;
  if (frame.kind === frameKinds.unload) {
    await models.get(request.key)?.close();
    models.delete(request.key);
    return;
  }
  try {
    const model = await LoadedModel.load(request);
    models.set(request.key, model);
    pipe.write(encodeJsonFrame(frameKinds.loaded, { key: request.key, ok: true, ...model.facts }));
  } catch (fault) {
    const reason = (fault as Error).message;
    pipe.write(encodeJsonFrame(frameKinds.loaded, { key: request.key, ok: false, reason }));
  }
}

readFrames(pipe, (frame) => {
  // A fault that escapes is a bug of this program; the process ends, and the worker replaces the slot.
  turn = turn.then(() => handle(frame));
});
pipe.on("end", () => process.exit(0));
pipe.on("error", () => process.exit(0));
// Ctrl-C reaches the whole process group; a slot ends only when its worker closes the pipe.
process.on("SIGINT", () => undefined);
process.on("SIGTERM", () => undefined);
