import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  batchKeys,
  counts,
  finalBatch,
  ndjson,
  type OpenUpload,
  openUpload,
  resultsOf,
  types,
} from "../support/batches.js";
import { assertProblem } from "../support/http/problem.js";
import { flow } from "../support/stack/flows.js";
import { peakBytes } from "../support/stack/processes.js";
import { TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const echo = "echo-float32";
const manifests = { [echo]: { kind: "tabular", input: { tensor: "x", features: ["a", "b", "c"] } } };
const million = 1e6;

describe("a hostile or a slow upload", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [tree, echo], manifests });
  });
  afterAll(() => stack?.close());

  /** Asserts that the API needs less than `bytes` more memory for `act`, and still answers others. */
  async function assertMemoryGrowthBelow(bytes: number, act: () => Promise<void>): Promise<void> {
    const { pid } = stack.apis[0] as TestStack["apis"][number];
    const before = peakBytes(pid);
    await act();
    expect((await stack.get("/health", { as: null })).status).toBe(200);
    expect(peakBytes(pid) - before).toBeLessThan(bytes);
  }

  async function writeFiller(open: OpenUpload, filler: string, bytes: number): Promise<void> {
    const piece = Buffer.alloc(million, filler);
    for (let sent = 0; sent < bytes; sent += piece.length) await open.write(piece);
  }

  test.each([
    ["NDJSON", types.ndjson, "[1,2,3]\n[1,2,", "]\n[4,5,6]\n"],
    ["JSON", types.json, '{"inputs":[[1,2,3],[1,2,', "],[4,5,6]]}"],
    ["CSV, quoted", types.csv, 'a,b,c\n1,2,3\n1,2,"', '"\n4,5,6'],
  ])("with a row of 100 MB in %s fails in that row alone, without buffering it", async (_what, type, before, after) => {
    await assertMemoryGrowthBelow(70e6, async () => {
      const open = openUpload(stack, echo, { type });
      await open.write(before);
      await writeFiller(open, "3", 100 * million);
      open.end(after);
      const { body, status } = await open.answer;
      expect(status, JSON.stringify(body)).toBe(202);
      expect(await finalBatch(stack, body.id)).toMatchObject({ status: "partial", counts: counts(2, 1) });
      expect((await resultsOf(stack, body.id)).map(({ error, output }) => error?.code ?? output.y[0])).toEqual([
        [1, 2, 3],
        "row_too_large",
        [4, 5, 6],
      ]);
    });
  });

  test.each([
    ["line ends", "\n"],
    ["one endless row", "0"],
  ])("in gzip of almost only %s is refused while it is unpacked, and leaves nothing", async (_what, filler) => {
    // Concatenated gzip members unpack to the concatenation of their texts.
    const part = gzipSync(Buffer.alloc(10 * million, filler), { level: 9 });
    const bomb = Buffer.concat(Array.from({ length: 30 }, () => part));
    expect(bomb.length).toBeLessThan(million);
    await assertMemoryGrowthBelow(70e6, async () => {
      const open = openUpload(stack, echo, { headers: { "content-encoding": "gzip" } });
      open.end(bomb);
      assertProblem(await open.answer, 413, "body_too_large");
    });
    expect((await batchKeys(stack, echo)).filter((key) => key.includes("/batch-chunks:"))).toEqual([]);
  });

  test("continues as long as bytes arrive, and twenty at once keep no bodies in memory", async () => {
    const flows = Array.from({ length: 50 }, (_, i) => flow(i * 7919));
    const lines = ndjson(flows);
    const rounds = 280;
    expect(lines.length * rounds * 20).toBeGreaterThan(80e6);
    const part = lines.repeat(rounds / 4);
    const uploads = Array.from({ length: 20 }, () => openUpload(stack, tree));
    await assertMemoryGrowthBelow(70e6, async () => {
      for (let round = 0; round < 4; round++) {
        await Promise.all(uploads.map((open) => open.write(part)));
        // Between the parts all uploads pause, each within a row.
        await Promise.all(uploads.map((open) => open.write("[1,")));
        expect((await stack.predict(echo, [1, 2, round])).body.status).toBe("succeeded");
        await Promise.all(uploads.map((open) => open.write("2]\n")));
      }
    });
    for (const open of uploads.slice(1)) open.hangUp();
    const [first] = uploads as [OpenUpload];
    first.end();
    const { body } = await first.answer;
    expect((await finalBatch(stack, body.id)).counts).toEqual(counts(50 * rounds, 4));
  });
});
