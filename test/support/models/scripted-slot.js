// A slot program for tests of the slot pool. Loads and runs succeed unless a file at the path of the load request's
// folder says otherwise: "die" kills the process during the load, "die once" does so and is removed, "refuse" refuses
// the load, and "hang" keeps the load from ending until the file is gone.
import { existsSync, readFileSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { decodeRun, encodeDone, encodeJsonFrame, frameKinds, readFrames } from "../../../workers/dist/runs/frames.js";

const pipe = new Socket({ fd: 3, readable: true, writable: true });
readFrames(pipe, ({ body, kind }) => {
  if (kind === frameKinds.run) {
    const { packs, runId } = decodeRun(body);
    const items = packs.map(() => ({ ok: true, text: "{}", confidence: Number.NaN, inferenceMs: 0, batchRows: 1 }));
    pipe.write(encodeDone(runId, null, items));
    return;
  }
  if (kind !== frameKinds.load) return;
  const { folder, key } = JSON.parse(body.toString());
  const behaviour = existsSync(folder) ? readFileSync(folder, "utf8") : "";
  if (behaviour === "die once") rmSync(folder);
  if (behaviour.startsWith("die")) process.kill(process.pid, "SIGKILL");
  const facts = {
    inputs: [],
    outputs: [],
    joining: { mode: "proven", reason: "" },
    proofFault: false,
    drawsNumbers: false,
  };
  if (behaviour === "hang") {
    while (existsSync(folder)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }
  const reply = behaviour === "refuse" ? { ok: false, reason: "not now" } : { ok: true, ...facts };
  pipe.write(encodeJsonFrame(frameKinds.loaded, { key, ...reply }));
});
pipe.on("end", () => process.exit(0));
