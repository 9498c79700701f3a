import { cp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { childrenOf, readiness, type TestWorker } from "../support/stack/processes.js";
import { copyModels, TestStack } from "../support/stack/stack.js";

/** A sample with a 1 makes the load of `endless-on-one` never end. */
const endless = (limitMs: number) => ({
  kind: "tensor",
  session: { load_timeout_ms: limitMs },
  samples: [{ input: { x: [[1]] } }],
});

describe("a version whose load never ends", () => {
  let stack: TestStack;
  afterEach(() => stack.close());
  const timing = { worker: { slowLoadMs: 1000, versionRetryMs: 600_000 } };
  const worker = () => stack.workers[0] as TestWorker;
  const refusedOf = async (model: string) =>
    (await readiness(worker())).refused.filter((refused: { model: string }) => refused.model === model);

  test.each([1, 2])("holds up no other at the start, and is refused after its limit (%i slots)", async (slots) => {
    stack = await TestStack.start({
      models: ["endless-on-one", "row-sums", "scalars"],
      manifests: { "endless-on-one": endless(20_000) },
      ...{ slots, timing },
    });
    // The stack has started, so worker and API are ready.
    const state = await readiness(worker());
    expect(state.ready).toBe(true);
    expect(state.loading).toEqual([{ model: "endless-on-one", version: "1" }]);
    expect(state.models.map(({ model }: { model: string }) => model).toSorted()).toEqual(["row-sums", "scalars"]);
    expect((await stack.predict("scalars", { a: 1, b: 2 })).body.output).toEqual({ sum: 3, product: 2 });
    await eventually(async () => {
      expect(await refusedOf("endless-on-one")).toEqual([
        {
          model: "endless-on-one",
          version: "1",
          reason: "loading it took over 20000 ms (session.load_timeout_ms)",
        },
      ]);
    }, 60_000);
    expect((await stack.predict("scalars", { a: 2, b: 2 })).body.output).toEqual({ sum: 4, product: 4 });
    expect(await childrenOf(worker().pid)).toHaveLength(slots);
  });

  test("holds up no version that comes after it, and ends with its folder", async () => {
    stack = await TestStack.start({ models: ["scalars"], timing });
    await copyModels(stack.modelsDir, ["endless-on-one"], { "endless-on-one": endless(600_000) });
    await eventually(async () => expect((await readiness(worker())).loading).toHaveLength(1));
    await copyModels(stack.modelsDir, ["row-sums"]);
    await eventually(async () => expect((await stack.get("/v1/models/row-sums")).status).toBe(200));
    await rm(join(stack.modelsDir, "endless-on-one"), { recursive: true });
    await eventually(async () => expect((await readiness(worker())).loading).toEqual([]));
    await eventually(async () => expect(await childrenOf(worker().pid)).toHaveLength(1));
  });

  test("is loaded again when its manifest allows what it takes", async () => {
    stack = await TestStack.start({
      models: ["scalars", "slow"],
      manifests: { slow: { kind: "tensor", session: { load_timeout_ms: 1 } } },
      timing,
    });
    expect(await refusedOf("slow")).toMatchObject([{ reason: expect.stringContaining("over 1 ms") }]);
    await writeFile(join(stack.modelsDir, "slow", "model.json"), JSON.stringify({ kind: "tensor" }));
    await eventually(async () => expect((await stack.get("/v1/models/slow")).status).toBe(200));
  });
});

describe("the versions of a model", () => {
  let stack: TestStack;
  afterEach(() => stack.close());

  test.each([1, 2])(
    "are announced from the highest down, so that no lower one gets its work (%i slots)",
    async (slots) => {
      stack = await TestStack.start({ models: ["scalars"], workers: 0, slots });
      const home = join(stack.modelsDir, "scalars");
      for (const version of ["2", "3", "10"]) await cp(join(home, "1"), join(home, version), { recursive: true });
      const starting = stack.startWorker();
      const served: string[] = [];
      await eventually(async () => {
        const { body, status } = await stack.predict("scalars", { a: 1, b: 2 });
        if (status === 200) served.push(body.version);
        expect((await stack.get("/v1/models/scalars")).body.versions).toHaveLength(4);
      });
      await starting;
      expect(new Set([...served, (await stack.predict("scalars", { a: 1, b: 2 })).body.version])).toEqual(
        new Set(["10"]),
      );
      expect(stack.logged("version loaded").map(({ version }) => version)).toEqual(["10", "3", "2", "1"]);
    },
  );
});
