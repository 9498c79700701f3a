import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const file = new URL("../../durations.json", import.meta.url);
/** Assumed duration, in seconds, of a test file without a recorded one. */
const usualSeconds = 10;

/**
 * Runs the longest test files first, by the durations of the last `npm run durations`, so that none of them runs alone
 * at the end.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const seconds = JSON.parse(readFileSync(file, "utf8")) as Record<string, number>;
    const of = ({ moduleId, project }: TestSpecification) =>
      seconds[relative(project.config.root, moduleId)] ?? usualSeconds;
    return [...files].sort((a, b) => of(b) - of(a));
  }
}
