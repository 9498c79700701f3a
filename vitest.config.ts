import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/support/run/longest-first.js";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/run/global-setup.ts"],
    setupFiles: ["test/support/run/flush-coverage.ts"],
    pool: "forks",
    // Files share processes, and with them loaded modules. Run a file alone to find what it leaks.
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
