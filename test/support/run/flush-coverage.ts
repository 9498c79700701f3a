import { takeCoverage } from "node:v8";
import { afterAll } from "vitest";

// A test process is ended in a way that would lose what V8 counted in it.
afterAll(() => {
  if (process.env.NODE_V8_COVERAGE) takeCoverage();
});
