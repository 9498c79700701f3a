// Leaves a process a part of a core, until it is killed: `node starve.js <pid> <part>`. The process stands still for
// 95 ms at a time, and then runs for its part of the time that really went by, which on a busy machine is longer.
import { setTimeout as delay } from "node:timers/promises";

const [pid, part] = process.argv.slice(2).map(Number);
for (;;) {
  const stoppedAt = performance.now();
  process.kill(pid, "SIGSTOP");
  await delay(95);
  process.kill(pid, "SIGCONT");
  await delay(((performance.now() - stoppedAt) * part) / (1 - part));
}
