// The product's slot, but the fixture `slow` sleeps instead of computing. One run takes as many ms as the largest value
// of its rows, on any machine, or ends when a file `release` appears in the model's folder. It blocks the slot's thread
// without using a core, so tests that run beside it are not slowed down.
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";

const slow = readFileSync(new URL("../../fixtures/models/slow/1/model.onnx", import.meta.url));
const never = new Int32Array(new SharedArrayBuffer(4));
const create = InferenceSession.create.bind(InferenceSession);

InferenceSession.create = async (file, options) => {
  const session = await create(file, options);
  if (readFileSync(file).equals(slow)) {
    const release = join(dirname(dirname(file)), "release");
    session.run = async ({ x }) => {
      const longestMs = x.data.reduce((longest, ms) => Math.max(longest, Number(ms)), 0);
      const endsAt = performance.now() + longestMs;
      for (let left = longestMs; left > 0 && !existsSync(release); left = endsAt - performance.now()) {
        Atomics.wait(never, 0, 0, Math.min(50, left));
      }
      return { y: new Tensor("int64", x.data.slice(), x.dims) };
    };
  }
  return session;
};
await import("../../../workers/dist/slot/main.js");
