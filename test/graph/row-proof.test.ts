import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { proveRows, type RowProof, rulesByDomain } from "@millrace/workers/graph/prove-rows.js";
import { readOnnx } from "@millrace/workers/graph/read-onnx.js";
import { afterAll, describe, expect, test } from "vitest";
import { type Comparison, compareJoined, openSession, randomRequest } from "../support/models/joined-runs.js";
import { onnxFile } from "../support/models/onnx-file.js";
import { random } from "../support/random.js";
import { classicalCases } from "./row-cases/classical-cases.js";
import { elementwiseCases } from "./row-cases/elementwise-cases.js";
import { linearCases } from "./row-cases/linear-cases.js";
import { reduceCases } from "./row-cases/reduce-cases.js";
import type { RowCase } from "./row-cases/row-case.js";
import { selectCases } from "./row-cases/select-cases.js";
import { shapeCases } from "./row-cases/shape-cases.js";

const all = [elementwiseCases, shapeCases, selectCases, linearCases, reduceCases, classicalCases].flat();

const folder = mkdtempSync(join(tmpdir(), "millrace-row-proof-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function proofOf({ file }: RowCase): RowProof {
  const path = join(folder, "model.onnx");
  writeFileSync(path, onnxFile(file));
  return proveRows(readOnnx(path));
}

const requestSizes = [
  [1, 1],
  [2, 1],
  [1, 2, 2],
];

/** Joined runs of several sets of requests, each compared with its requests alone. */
async function comparisons({ file, inputs }: RowCase): Promise<Comparison[]> {
  const session = await openSession(onnxFile(file));
  try {
    const made: Comparison[] = [];
    for (const [i, counts] of requestSizes.entries()) {
      const own = random(i + 1);
      made.push(
        await compareJoined(
          session,
          counts.map((rows) => randomRequest(own, inputs, rows)),
        ),
      );
    }
    return made;
  } finally {
    await session.release();
  }
}

test("every operator of the rules has cases", () => {
  for (const [domain, rules] of Object.entries(rulesByDomain)) {
    const here = all.filter((cases) => cases.domain === domain).map(({ type }) => type);
    expect(here.sort(), domain).toEqual(Object.keys(rules).sort());
  }
});

describe.each(all)("$domain $type", ({ apart, mixed }) => {
  test("is proven if it keeps rows apart, and joined runs answer as each request alone", async () => {
    for (const own of apart) {
      expect(proofOf(own)).toMatchObject({ proven: true });
      if (own.checkedByRuns) expect(await comparisons(own)).toEqual(requestSizes.map(() => ({ kind: "same" })));
    }
  });

  test("is not proven if it mixes rows, as runs show", async () => {
    for (const own of mixed) {
      expect(proofOf(own)).toMatchObject({ proven: false, reason: expect.stringMatching(/\w/) });
      if (own.checkedByRuns) expect((await comparisons(own)).map(({ kind }) => kind)).toContain("different");
    }
  });
});
