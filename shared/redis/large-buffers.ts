import { setFlagsFromString } from "node:v8";

let expected = false;

/**
 * To be called by what handles buffers of a MiB and more. Node counts them towards a heap that is otherwise small, so
 * that V8 by itself collects the whole of it for every second tensor, at several times the cost of everything else.
 * From now on it lets the heap and what is counted with it grow to two and a half times what was alive, which is little
 * here.
 */
export function expectLargeBuffers(): void {
  if (expected) return;
  expected = true;
  setFlagsFromString("--heap-growing-percent=150");
}
