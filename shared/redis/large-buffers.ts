import { setFlagsFromString } from "node:v8";

let expected = false;

/**
 * Call it before handling buffers of a MiB and more. Node counts them towards a heap that is otherwise small, so that
 * V8 collects the whole heap for every second tensor, at several times the cost of everything else. From now on the
 * heap and its buffers may grow to three times their live size, which is about 20 MB here.
 */
export function expectLargeBuffers(): void {
  if (expected) return;
  expected = true;
  setFlagsFromString("--heap-growing-percent=200");
}
