import { parseArgs } from "node:util";
import { readCommit, readMachine } from "./harness/machine.js";
import { withReleasers } from "./harness/releasers.js";
import { tableOf, writeResult } from "./harness/report.js";
import type { Figure, Scenario } from "./harness/scenario.js";
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

/** Concurrent scenarios of a quick run; without measurements they may share the machine. */
const quickAtOnce = 2;

/** Runs the named scenarios, or all. Resolves to the exit code; a missed goal is reported, but is not a failure. */
async function main(args: readonly string[]): Promise<number> {
  const { quick, scenarios: named } = readArguments(args);
  const unknown = named.find((name) => !Object.hasOwn(scenarios, name));
  if (unknown !== undefined) throw new UsageError(`unknown scenario: ${unknown}`);
  const names = named.length > 0 ? named : Object.keys(scenarios);
  return (quick ? await tryAll(names) : await measureAll(names)) ? 0 : 1;
}

/** Measures one scenario after the other, prints its figures and writes them. Resolves to whether all ran. */
async function measureAll(names: readonly string[]): Promise<boolean> {
  const machine = readMachine();
  const commit = readCommit();
  print(
    Object.entries({ commit, ...machine })
      .map(([key, value]) => `${key} ${value}`)
      .join(", "),
  );
  let ran = true;
  for (const name of names) {
    print(`\n${name}`);
    try {
      const figures = await run(name, false, say);
      print(tableOf(figures));
      await writeResult(name, commit, machine, figures);
    } catch (fault) {
      ran = false;
      print(`failed: ${(fault as Error).stack}`);
    }
  }
  return ran;
}

/** Runs each scenario briefly, without reporting its meaningless figures. Resolves to whether all ran. */
async function tryAll(names: readonly string[]): Promise<boolean> {
  const waiting = [...names];
  let ran = true;
  const next = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      try {
        const figures = await run(name, true, () => undefined);
        if (figures.length === 0) throw new Error("the scenario returned no figures");
        print(`${name} runs: ${figures.length} figures`);
      } catch (fault) {
        ran = false;
        print(`${name} failed: ${(fault as Error).stack}`);
      }
    }
  };
  await Promise.all(Array.from({ length: quickAtOnce }, next));
  return ran;
}

const run = (name: string, quick: boolean, tell: (line: string) => void): Promise<Figure[]> =>
  withReleasers((onClose) => (scenarios[name] as Scenario)({ quick, onClose, say: tell }));

class UsageError extends Error {}

function readArguments(args: readonly string[]): { quick: boolean; scenarios: string[] } {
  try {
    const { positionals, values } = parseArgs({
      args: [...args],
      options: { quick: { type: "boolean", default: false } },
      allowPositionals: true,
    });
    return { quick: values.quick, scenarios: positionals };
  } catch (fault) {
    throw new UsageError((fault as Error).message);
  }
}

// A private Redis does not keep this process alive, but its end must be awaited.
setInterval(() => undefined, 60_000);
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
try {
  process.exit(await main(process.argv.slice(2)));
} catch (fault) {
  if (!(fault instanceof UsageError)) throw fault;
  process.stderr.write(`${fault.message}\nusage: npm run bench -- [--quick] [${Object.keys(scenarios).join("] [")}]\n`);
  process.exit(2);
}
