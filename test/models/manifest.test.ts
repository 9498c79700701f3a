import { readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { manifestJsonSchema } from "@millrace/shared/models/manifest.js";
import { readManifest } from "@millrace/shared/models/read-manifest.js";
import { listVersions, readVersion } from "@millrace/workers/versions/model-repository.js";
import { describe, expect, test } from "vitest";

const models = fileURLToPath(new URL("../../models/", import.meta.url));

/** JSON Pointers of a manifest's faults, sorted. */
const pointersOf = (manifest: unknown) => {
  const read = readManifest(JSON.stringify(manifest));
  return "complaints" in read ? read.complaints.map(({ pointer }) => pointer).sort() : [];
};
const tabular = (input: object, output: object = { head: "raw" }) => ({
  kind: "tabular",
  input: { tensor: "x", features: ["a", "b"], ...input },
  output,
});

describe("model.json", () => {
  test("the schema file in models/ equals the one used for checks (vitest -u writes it)", async () => {
    const text = `${JSON.stringify(manifestJsonSchema(), null, 2)}\n`;
    await expect(text).toMatchFileSnapshot("../../models/model.schema.json");
  });

  test("every shipped manifest is valid and names the schema for editors", () => {
    const shipped = readdirSync(models, { withFileTypes: true }).filter(
      ({ name }) => name !== "training" && !name.includes("."),
    );
    expect(shipped.length).toBeGreaterThan(2);
    for (const { name } of shipped) {
      const text = readFileSync(join(models, name, "model.json"), "utf8");
      expect(readManifest(text), name).toHaveProperty("manifest.$schema", "../model.schema.json");
    }
  });

  test("a manifest with twenty faults gets twenty pointers", () => {
    const manifest = {
      $schema: 1,
      kind: "tabular",
      input: {
        tensor: "",
        features: [
          "a",
          { name: 3 },
          { name: "b", min: "low" },
          { name: "c", type: "colour" },
          { name: "d", values: "red" },
          { name: "e", largest: 1 },
          7,
        ],
        derived: [
          { name: "f", op: "guess", of: ["a"] },
          { name: "g", op: "sum" },
        ],
        extra: true,
      },
      output: { head: "classifier", probabilities: "p", labels: ["only"] },
      batching: { max_batch_rows: 0, max_delay_ms: -1 },
      timeout_ms: "soon",
      attempts: 1.5,
      backoff_ms: -1,
      cache_ttl_seconds: 90_000,
      metrics: { accuracy: "good" },
      tuning: {},
    };
    const pointers = [
      "/$schema",
      "/input/tensor",
      "/input/features/1/name",
      "/input/features/2/min",
      "/input/features/3/type",
      "/input/features/4/values",
      "/input/features/5/largest",
      "/input/features/6",
      "/input/derived/0/op",
      "/input/derived/1/of",
      "/input/extra",
      "/output/labels",
      "/batching/max_batch_rows",
      "/batching/max_delay_ms",
      "/timeout_ms",
      "/attempts",
      "/backoff_ms",
      "/cache_ttl_seconds",
      "/metrics/accuracy",
      "/tuning",
    ];
    expect(pointersOf(manifest)).toEqual(pointers.sort());
  });

  test.each<[string, unknown, string[]]>([
    ["a manifest that is not an object", [], [""]],
    ["an unknown kind", { kind: "audio" }, ["/kind"]],
    ["an unknown head", { ...tabular({}), output: { head: "ranker" } }, ["/output/head"]],
    ["two features of one name", tabular({ features: ["a", { name: "a" }] }), ["/input/features/1"]],
    [
      "a category without values",
      tabular({ features: [{ name: "a", type: "category" }] }),
      ["/input/features/0/values"],
    ],
    [
      "an invalid default",
      tabular({
        features: [
          { name: "a", type: "category", values: ["x"], default: "y" },
          { name: "b", max: 1, default: 2 },
        ],
      }),
      ["/input/features/0/default", "/input/features/1/default"],
    ],
    [
      "a derived column with unknown, missing or incomplete operands",
      tabular({
        derived: [
          { name: "c", op: "ratio", of: ["a", "z"] },
          { name: "d", op: "ratio", of: ["a"] },
          { name: "e", op: "sin", of: ["a"] },
        ],
      }),
      ["/input/derived/0/of/1", "/input/derived/1/of", "/input/derived/2/period"],
    ],
    ["neither tensor nor tokenizer", { kind: "text", input: {} }, ["/input"]],
    [
      "a tokenizer elsewhere",
      { kind: "text", input: { tokenizer: { file: "../tokenizer.json" } } },
      ["/input/tokenizer/file"],
    ],
    [
      "means of other channels",
      { kind: "image", input: { tensor: "x", width: 8, height: 8, mean: [1, 2] } },
      ["/input/mean"],
    ],
    [
      "members with a file outside the folder or an unknown label",
      tabular(
        {},
        {
          head: "ensemble",
          labels: ["yes", "no"],
          members: [
            { name: "m", kind: "classifier", file: "a/b.onnx", probabilities: "p", labels: ["yes", "no"] },
            { name: "r", kind: "rules", rules: [{ when: "true", label: "maybe" }] },
          ],
        },
      ),
      ["/output/members/0/file", "/output/members/1/rules/0/label"],
    ],
    [
      "a rule for an unknown label",
      tabular(
        {},
        {
          head: "ensemble",
          labels: ["yes", "no"],
          members: [{ name: "r", kind: "rules", rules: [{ when: "true", label: "maybe" }] }],
        },
      ),
      ["/output/members/0/rules/0/label"],
    ],
  ])("%s is reported by its pointer", (_what, manifest, pointers) => {
    expect(pointersOf(manifest)).toEqual(pointers);
  });

  test("a refused manifest is reported with file, pointer and expectation", async () => {
    const dir = await mkdtemp(join(tmpdir(), "millrace-manifest-"));
    try {
      await mkdir(join(dir, "bad/1"), { recursive: true });
      const manifest = {
        kind: "tabular",
        input: { tensor: "x", features: [{ name: "a", min: "low" }] },
        attempts: "many",
      };
      await writeFile(join(dir, "bad/model.json"), JSON.stringify(manifest));
      const { bad, folders } = await listVersions(dir, ["*"]);
      expect([bad, folders.map(({ model }) => model)]).toEqual([[], ["bad"]]);
      await expect(readVersion(folders[0] as (typeof folders)[number], [])).rejects.toThrow(
        "model.json /attempts: expected a number, got a string; " +
          "model.json /input/features/0/min: expected a number, got a string",
      );
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});
