import { fileURLToPath } from "node:url";

const preload = fileURLToPath(new URL("./shift-clock.js", import.meta.url));

/**
 * The environment of a service on a machine whose clock is off by `offMs`, ahead of the right time or, below 0, behind
 * it. With each SIGUSR2 the clock steps by `stepMs` more.
 */
export const offClock = (offMs: number, stepMs = 0): Record<string, string> => ({
  NODE_OPTIONS: `--import=file://${preload}`,
  MILLRACE_TEST_CLOCK_MS: String(offMs),
  MILLRACE_TEST_CLOCK_STEP_MS: String(stepMs),
});
