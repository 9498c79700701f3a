import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { proveRows } from "@millrace/workers/graph/prove-rows.js";
import { readOnnx } from "@millrace/workers/graph/read-onnx.js";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import {
  type Comparison,
  compareJoined,
  openSession,
  type Request,
  randomRequest,
  refused,
} from "../support/models/joined-runs.js";
import { onnxFile } from "../support/models/onnx-file.js";
import { random } from "../support/random.js";
import { volume } from "../support/run/volume.js";
import { type GraphPlan, type RandomGraph, randomGraph } from "./row-graphs/random-graph.js";

const graphs = Number(process.env.ROW_PROOF_GRAPHS ?? volume(300, 1200));
const seed = Number(process.env.ROW_PROOF_SEED ?? 20_261_128);

const folder = mkdtempSync(join(tmpdir(), "millrace-row-proof-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const plan: fc.Arbitrary<GraphPlan> = fc.record({
  seed: fc.nat(2 ** 31 - 1),
  steps: fc.array(fc.nat(2 ** 31 - 1), { minLength: 1, maxLength: 8 }),
});

/** Sets of two to four requests of one to three rows; the first sets are the smallest, which mix most easily. */
function requestSets({ inputs }: RandomGraph, own: ReturnType<typeof random>): Request[][] {
  const counts = [[1, 1], [1, 2], [1, 1, 1], Array.from({ length: 2 + own.below(3) }, () => 1 + own.below(3))];
  return counts.map((rows) => rows.map((count) => randomRequest(own, inputs, count)));
}

test("a proven random graph keeps rows apart: every joined run answers as each request alone", async () => {
  const tally = { proven: 0, provenRan: 0, provenRefused: 0, unproven: 0, joinable: 0, mixing: 0, refused: 0 };
  const reasons = new Map<string, number>();
  const file = join(folder, "model.onnx");
  const holds = async (own: GraphPlan) => {
    const graph = randomGraph(own);
    const bytes = onnxFile(graph.file);
    const session = await openSession(bytes).catch(refused);
    if (session === null) {
      tally.refused += 1;
      return;
    }
    try {
      writeFileSync(file, bytes);
      const proof = proveRows(readOnnx(file));
      let ran = 0;
      let differs: Comparison | null = null;
      // A difference due to rounding alone does not repeat with other numbers.
      for (let turn = 0; turn < 4 && (turn === 0 || differs !== null); turn++) {
        differs = null;
        for (const requests of requestSets(graph, random(own.seed + turn))) {
          const found = await compareJoined(session, requests);
          if (found.kind === "same") ran += 1;
          else if (found.kind === "different") differs = found;
          if (differs !== null) break;
        }
      }
      if (!proof.proven) {
        tally.unproven += 1;
        if (differs !== null) tally.mixing += 1;
        else if (ran >= 3) {
          tally.joinable += 1;
          reasons.set(proof.reason, (reasons.get(proof.reason) ?? 0) + 1);
        }
        return;
      }
      tally.proven += 1;
      if (ran > 0 || differs !== null) tally.provenRan += 1;
      else tally.provenRefused += 1;
      if (differs?.kind === "different") throw new Error(`${differs.how}\n${described(graph)}`);
    } finally {
      await session.release();
    }
  };
  await fc.assert(fc.asyncProperty(plan, holds), { numRuns: graphs, seed });
  process.stdout.write(`seed ${seed}: ${JSON.stringify(tally)}\n`);
  if (process.env.ROW_PROOF_REASONS !== undefined) {
    for (const [reason, count] of [...reasons].sort((a, b) => b[1] - a[1]).slice(0, 60)) {
      process.stdout.write(`${count} ${reason}\n`);
    }
  }
  expect(tally.provenRan).toBeGreaterThan(graphs * 0.35);
}, 3_600_000);

/** A graph as short lines, one an operator. */
function described({ file }: RandomGraph): string {
  const values = (named: object) => Object.entries(named).map(([name, [, shape]]) => `${name} ${shape ?? ""}`);
  const fixed = Object.entries(file.constants ?? {}).map(([name, { data, dims }]) => {
    const shown = data.length > 8 ? "" : ` = ${data.map((n) => Number(Number(n).toFixed(2)))}`;
    return `${name} [${dims}]${shown}`;
  });
  const lines = file.nodes.map(({ attributes, inputs, outputs, type }) => {
    return `${outputs} = ${type}(${inputs}) ${JSON.stringify(attributes)}`;
  });
  return [`opset ${file.opset}: ${values(file.inputs)}`, ...fixed, ...lines, ...values(file.outputs)].join("\n");
}
