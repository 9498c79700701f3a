import { Socket } from "node:net";
import { Worker } from "node:worker_threads";
import {
  decodeLaidRun,
  decodeRun,
  encodeDone,
  encodeJsonFrame,
  type Frame,
  frameHead,
  frameKinds,
  readFrames,
} from "../frames.js";
import type { LoadRequest } from "../load-request.js";
import { takeUp } from "../table-passage.js";
import { LoadedModel } from "./loaded-model.js";

/**
 * A slot: the process that holds ONNX sessions and runs one model at a time. It knows nothing of Redis, and whatever
 * kills it costs its worker one slot. It ends with its worker, even from within a run that never returns.
 */
const pipe = new Socket({ fd: 3, readable: true, writable: true });
const passage = 4;
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

/** In two parts, which spares a copy. */
function replyTable(outputs: Buffer): void {
  pipe.cork();
  pipe.write(frameHead(frameKinds.doneTable, outputs.length));
  pipe.write(outputs);
  pipe.uncork();
}

async function handle(frame: Frame): Promise<void> {
  if (frame.kind === frameKinds.run) {
    const { runId, modelKey, packs } = decodeRun(frame.body);
    const model = loaded(modelKey);
    const items = await model.run(packs);
    pipe.write(encodeDone(runId, model.joinable, items));
    return;
  }
  if (frame.kind === frameKinds.runTable) {
    const { modelKey, packs } = decodeRun(frame.body);
    replyTable(await loaded(modelKey).runTable(packs[0] as Buffer));
    return;
  }
  if (frame.kind === frameKinds.runTableLaid) {
    const { headLength, length, modelKey } = decodeLaidRun(frame.body);
    // So that the numbers behind the head lie where a typed array can have them.
    const pack = takeUp(passage, length, 8 - (headLength % 8));
    replyTable(await loaded(modelKey).runTable(pack));
    return;
  }
  const request = JSON.parse(frame.body.toString()) as LoadRequest;
  if (frame.kind === frameKinds.unload) {
    await models.get(request.key)?.close();
    models.delete(request.key);
    return;
  }
  try {
    const model = await LoadedModel.load(request);
    models.set(request.key, model);
    const { inputs, outputs, joinable } = model;
    pipe.write(encodeJsonFrame(frameKinds.loaded, { key: request.key, ok: true, inputs, outputs, joinable }));
  } catch (fault) {
    const reason = (fault as Error).message;
    pipe.write(encodeJsonFrame(frameKinds.loaded, { key: request.key, ok: false, reason }));
  }
}

readFrames(pipe, (frame) => {
  // A fault that escapes is one of this program; ending lets the worker blame, replace and go on.
  turn = turn.then(() => handle(frame));
});
pipe.on("end", () => process.exit(0));
pipe.on("error", () => process.exit(0));
// Ctrl-C reaches the whole process group; a slot ends when its worker lets go of it.
process.on("SIGINT", () => undefined);
process.on("SIGTERM", () => undefined);
