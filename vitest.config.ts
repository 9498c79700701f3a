import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/support/run/longest-first.js";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/run/global-setup.ts"],
    setupFiles: ["test/support/run/flush-coverage.ts"],
    pool: "forks",
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
  },
});
