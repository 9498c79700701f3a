import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/support/run/longest-first.js";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/run/global-setup.ts"],
    setupFiles: ["test/support/run/flush-coverage.ts"],
    pool: "forks",
    // No file leaves anything in its process, so that the next one need not load the modules again.
    isolate: false,
    // Compiled code is loaded by Node itself, as in the services.
    server: { deps: { external: [/\/dist\//] } },
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
  },
});
