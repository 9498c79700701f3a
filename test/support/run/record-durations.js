// Writes the duration of each test file, in seconds, to test/durations.json; its argument is the JSON report of a run.
import { readFileSync, writeFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const { testResults } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const seconds = testResults.map(({ endTime, name, startTime }) => [
  relative(root, name),
  Math.max(1, Math.round((endTime - startTime) / 1000)),
]);
writeFileSync(`${root}test/durations.json`, `${JSON.stringify(Object.fromEntries(seconds.sort()), null, 2)}\n`);
