import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const file = new URL("../../durations.json", import.meta.url);
/** Seconds of a test file whose duration is not recorded yet. */
const usualSeconds = 10;

/**
 * Begins with the test files that took longest when `npm run durations` was last run, so that no worker is left with
 * one.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const seconds = JSON.parse(readFileSync(file, "utf8")) as Record<string, number>;
    const of = ({ moduleId, project }: TestSpecification) =>
      seconds[relative(project.config.root, moduleId)] ?? usualSeconds;
    return [...files].sort((a, b) => of(b) - of(a));
  }
}
