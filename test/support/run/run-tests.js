// Runs the suite, or the test files named by the arguments, and ends with a summary line. Fails on a failed test, on no
// test, on a skipped test without a reason in test/skips.json, and on a step of Redis that blocks it. With
// `--coverage` as the first argument it also counts the lines run by every process, and fails at a line coverage of
// 80 % or less.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const bin = (name) => join(root, "node_modules/.bin", name);
const folder = mkdtempSync(join(tmpdir(), "millrace-report-"));
const report = join(folder, "report.json");

const notes = join(folder, "slow-steps");
/**
 * A step that takes this long in every run of its file fails the suite. It is ten times the longest that a step may
 * take, because a step's time includes times in which the machine ran something else; `longest-steps.test.ts` holds
 * the longest step itself, with each step at its largest and the shortest of many rounds.
 */
const failingMs = 100;
/** Further runs of the files in which a step of Redis took that long. */
const secondLooks = 3;

const vitest = [bin("vitest"), "run", "--reporter=default"];
const reported = [...vitest, "--reporter=json", `--outputFile.json=${report}`];
const withCoverage = process.argv[2] === "--coverage";
const counted = [
  bin("c8"),
  "--reporter=text",
  "--config=test/support/run/c8.json",
  "--check-coverage",
  "--lines=80.01",
];
const run = ([program, ...args]) => {
  writeFileSync(notes, "");
  const env = { ...process.env, SLOW_STEPS_FILE: notes };
  const { status } = spawnSync(program, args, { cwd: root, env, stdio: "inherit" });
  const steps = readFileSync(notes, "utf8").trim().split("\n").filter(Boolean);
  const parsed = steps.map((line) => JSON.parse(line));
  return { status, steps: parsed.filter(({ ms }) => ms > failingMs) };
};
const { status, steps } = run([
  ...(withCoverage ? counted : []),
  ...reported,
  ...process.argv.slice(withCoverage ? 3 : 2),
]);

// A machine that stands still makes any step that long, but hardly the same one in every run.
let slow = steps;
let againFailed = false;
for (let left = secondLooks; left > 0; left -= 1) {
  for (const { file, ms, words } of slow) process.stdout.write(`step of ${ms} ms in ${file}: ${words.join(" ")}\n`);
  const files = [...new Set(slow.map(({ file }) => file))].filter((file) => existsSync(join(root, file)));
  if (files.length === 0) break;
  process.stdout.write(`steps took over ${failingMs} ms, so these files run again: ${files.join(" ")}\n`);
  const again = run([...vitest, ...files]);
  againFailed ||= again.status !== 0;
  const isAgain = ({ file, script }) => again.steps.some((one) => one.file === file && one.script === script);
  slow = slow.filter((step) => !files.includes(step.file) || isAgain(step));
}

const indented = (text) =>
  text
    .split("\n", 12)
    .map((line) => `    ${line}`)
    .join("\n");

let results = { testResults: [] };
try {
  results = JSON.parse(readFileSync(report, "utf8"));
} catch (fault) {
  process.stdout.write(`the tests left no report: ${fault.message}\n`);
}
rmSync(folder, { recursive: true, force: true });

const listed = JSON.parse(readFileSync(join(root, "test/skips.json"), "utf8"));
const tests = results.testResults.flatMap((file) => file.assertionResults);
const count = (wanted) => tests.filter((test) => wanted.includes(test.status)).length;
const skipped = tests.filter((test) => ["skipped", "pending", "todo"].includes(test.status));
let unlisted = 0;
for (const { fullName } of skipped) {
  const reason = listed[fullName];
  if (reason === undefined) unlisted += 1;
  process.stdout.write(`skipped: ${fullName}: ${reason ?? "NOT LISTED in test/skips.json"}\n`);
}
// Repeated at the end, because the tests' own output scrolls the first mention away.
for (const { assertionResults, message, name } of results.testResults) {
  const faults = assertionResults.filter(({ status }) => status === "failed");
  for (const { failureMessages, fullName } of faults) {
    process.stdout.write(`failed: ${name.slice(root.length)}: ${fullName}\n${indented(failureMessages.join("\n"))}\n`);
  }
  if (message !== "" && faults.length === 0) {
    process.stdout.write(`failed: ${name.slice(root.length)}\n${indented(message)}\n`);
  }
}
const passed = count(["passed"]);
// A file that fails to load has no tests to count, so it counts as one.
const failed =
  count(["failed"]) +
  results.testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0).length;
for (const { file, ms, words } of slow) {
  process.stdout.write(
    `failed: ${file}: a step of Redis took ${ms} ms, and over ${failingMs} in each run: ${words.join(" ")}\n`,
  );
}
if (againFailed) process.stdout.write("failed: another run of the files with long steps; see above\n");
if (status !== 0 && failed === 0)
  process.stdout.write(
    `Something besides the tests failed: ${withCoverage ? "coverage, or " : ""}a leak. See above.\n`,
  );
if (unlisted > 0) process.stdout.write(`${unlisted} skipped tests are not listed\n`);
process.stdout.write(`${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}\n`);
const isGood = status === 0 && !againFailed && failed === 0 && unlisted === 0 && slow.length === 0;
process.exitCode = isGood && passed > 0 ? 0 : 1;
