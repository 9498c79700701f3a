import { takeCoverage } from "node:v8";
import { afterAll } from "vitest";

// Test processes are ended in a way that would lose V8's coverage counts.
afterAll(() => {
  if (process.env.NODE_V8_COVERAGE) takeCoverage();
});
