import { once } from "node:events";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { lockDataFolder } from "./data-lock.js";
import { endWithNpm } from "./end-with-parent.js";
import { spawnGuarded } from "./guarded-child.js";

// `npm start`: the lock comes first, because a second start must neither build nor touch anything. All of it is one
// process, so that the lock is held until the last part of the stack has ended.

const root = fileURLToPath(new URL("../..", import.meta.url));
const compiler = fileURLToPath(new URL("../../node_modules/typescript/bin/tsc", import.meta.url));

async function build() {
  if (!existsSync(compiler)) throw new Error("Millrace is not installed completely: run npm ci first.");
  process.stdout.write("Building Millrace ...\n");
  const compiling = spawnGuarded("task", [process.execPath, compiler, "-b"], root);
  const [code] = await once(compiling, "exit");
  compiling.stdio[3]?.destroy();
  if (code !== 0) throw new Error("The build failed; see above.");
}

/** @param {string[]} args */
async function launch(args) {
  const { env } = process;
  endWithNpm(env);
  const lock = await lockDataFolder(resolve(".data"));
  await build();
  const { runStart } = await import("../dist/start.js");
  return runStart(args, env, lock);
}

launch(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (/** @type {Error & { exitCode?: number }} */ fault) => {
    process.stderr.write(`${fault.message}\n`);
    process.exit(fault.exitCode ?? 1);
  },
);
