import { parseArgs } from "node:util";
import { readCommit, readMachine } from "./harness/machine.js";
import { withReleasers } from "./harness/releasers.js";
import { tableOf, writeResult } from "./harness/report.js";
import { batching } from "./scenarios/batching.js";
import { bulk } from "./scenarios/bulk.js";
import { depth } from "./scenarios/depth.js";
import { floor } from "./scenarios/floor.js";
import { imagePath } from "./scenarios/image-path.js";
import { lag } from "./scenarios/lag.js";
import { limits } from "./scenarios/limits.js";
import { memory } from "./scenarios/memory.js";
import { recovery } from "./scenarios/recovery.js";
import { scaleOut } from "./scenarios/scale-out.js";
import type { Scenario } from "./scenarios/scenario.js";
import { singleAsync } from "./scenarios/single-async.js";
import { singleWait } from "./scenarios/single-wait.js";
import { start } from "./scenarios/start.js";
import { tensor } from "./scenarios/tensor.js";
import { versions } from "./scenarios/versions.js";
import { webhooks } from "./scenarios/webhooks.js";

const scenarios: Record<string, Scenario> = {
  floor,
  "single-async": singleAsync,
  "single-wait": singleWait,
  start,
  recovery,
  lag,
  memory,
  webhooks,
  bulk,
  "scale-out": scaleOut,
  "image-path": imagePath,
  tensor,
  versions,
  batching,
  depth,
  limits,
};

const print = (line: string) => process.stdout.write(`${line}\n`);
const say = (line: string) => process.stderr.write(`  ${line}\n`);

/** Runs the scenarios that are named, or all. Resolves to the exit code: a goal that is missed is told, not a failure. */
async function main(args: readonly string[]): Promise<number> {
  const usage = `usage: npm run bench -- [--quick] [${Object.keys(scenarios).join("] [")}]`;
  const options = { quick: { type: "boolean", default: false } } as const;
  let asked: { positionals: string[]; values: { quick: boolean } };
  try {
    asked = parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (fault) {
    process.stderr.write(`${(fault as Error).message}\n${usage}\n`);
    return 2;
  }
  const { positionals: named } = asked;
  const { quick } = asked.values;
  const unknown = named.find((name) => !Object.hasOwn(scenarios, name));
  if (unknown !== undefined) {
    process.stderr.write(`unknown: ${unknown}\n${usage}\n`);
    return 2;
  }
  const machine = readMachine();
  const commit = readCommit();
  print(
    Object.entries({ commit, ...machine })
      .map(([key, value]) => `${key} ${value}`)
      .join(", "),
  );
  let failed = 0;
  for (const name of named.length > 0 ? named : Object.keys(scenarios)) {
    print(`\n${name}`);
    try {
      const figures = await withReleasers((onClose) => (scenarios[name] as Scenario)({ quick, onClose, say }));
      print(tableOf(figures));
      if (!quick) await writeResult(name, commit, machine, figures);
    } catch (fault) {
      failed += 1;
      print(`failed: ${(fault as Error).stack}`);
    }
  }
  if (quick) print("\nA quick run: its figures mean nothing, and none was written.");
  return failed === 0 ? 0 : 1;
}

// A private Redis is no reason for this process to live on, but its end is awaited.
setInterval(() => undefined, 60_000);
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
process.exit(await main(process.argv.slice(2)));
