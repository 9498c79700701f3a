// A slot program for tests of breakers: every version takes an int64 [N, 1] and succeeds, but while the file
// `behaviour-<version>` in the model's folder holds "die", every run kills the process.
import { existsSync, readFileSync } from "node:fs";
import { Socket } from "node:net";
import { basename, join } from "node:path";
import { decodeRun, encodeDone, encodeJsonFrame, frameKinds, readFrames } from "../../../workers/dist/runs/frames.js";

const behaviourFiles = new Map();
const pipe = new Socket({ fd: 3, readable: true, writable: true });
readFrames(pipe, ({ body, kind }) => {
  if (kind === frameKinds.run) {
    const { modelKey, packs, runId } = decodeRun(body);
    const file = behaviourFiles.get(modelKey);
    const behaviour = existsSync(file) ? readFileSync(file, "utf8") : "";
    if (behaviour === "die") process.kill(process.pid, "SIGKILL");
    const items = packs.map(() => ({ ok: true, text: "{}", confidence: Number.NaN, inferenceMs: 0, batchRows: 1 }));
    pipe.write(encodeDone(runId, null, items));
    return;
  }
  if (kind !== frameKinds.load) return;
  const { folder, key } = JSON.parse(body.toString());
  behaviourFiles.set(key, join(folder, "..", `behaviour-${basename(folder)}`));
  const inputs = [{ name: "x", dtype: "int64", shape: ["N", 1] }];
  const facts = {
    inputs,
    outputs: [],
    joining: { mode: "proven", reason: "" },
    proofFault: false,
    drawsNumbers: false,
  };
  pipe.write(encodeJsonFrame(frameKinds.loaded, { key, ok: true, ...facts }));
});
pipe.on("end", () => process.exit(0));
