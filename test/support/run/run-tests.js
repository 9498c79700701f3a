// Runs the suite, or the test files named by the arguments, and ends with a summary line. Fails on a failed test, on no
// test, and on a skipped test without a reason in test/skips.json. With `--coverage` as the first argument it also
// counts the lines run by every process, and fails at a line coverage of 80 % or less.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const bin = (name) => join(root, "node_modules/.bin", name);
const folder = mkdtempSync(join(tmpdir(), "millrace-report-"));
const report = join(folder, "report.json");

const vitest = [bin("vitest"), "run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
const withCoverage = process.argv[2] === "--coverage";
const counted = [
  bin("c8"),
  "--reporter=text",
  "--config=test/support/run/c8.json",
  "--check-coverage",
  "--lines=80.01",
];
const [program, ...args] = [...(withCoverage ? counted : []), ...vitest, ...process.argv.slice(withCoverage ? 3 : 2)];
const { status } = spawnSync(program, args, { cwd: root, stdio: "inherit" });

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
if (status !== 0 && failed === 0)
  process.stdout.write(
    `Something besides the tests failed: ${withCoverage ? "coverage, or " : ""}a leak. See above.\n`,
  );
if (unlisted > 0) process.stdout.write(`${unlisted} skipped tests are not listed\n`);
process.stdout.write(`${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}\n`);
process.exitCode = status === 0 && passed > 0 && failed === 0 && unlisted === 0 ? 0 : 1;
