// The product's slot, but that the fixture `slow` sleeps where it would keep a core busy: one run takes as many ms as
// its largest row says on any machine, blocks the slot's thread all the while, and costs the tests beside it nothing.
import { readFileSync } from "node:fs";
import { InferenceSession, Tensor } from "onnxruntime-node";

const slow = readFileSync(new URL("../../fixtures/models/slow/1/model.onnx", import.meta.url));
const never = new Int32Array(new SharedArrayBuffer(4));
const create = InferenceSession.create.bind(InferenceSession);

InferenceSession.create = async (file, options) => {
  const session = await create(file, options);
  if (readFileSync(file).equals(slow)) {
    session.run = async ({ x }) => {
      const longestMs = x.data.reduce((longest, ms) => Math.max(longest, Number(ms)), 0);
      if (longestMs > 0) Atomics.wait(never, 0, 0, longestMs);
      return { y: new Tensor("int64", x.data.slice(), x.dims) };
    };
  }
  return session;
};
await import("../../../workers/dist/slot/main.js");
