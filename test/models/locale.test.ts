import { spawnSync } from "node:child_process";
import { join } from "node:path";
import type { LoadRequest } from "@millrace/workers/runs/load-request.js";
import { openEngine } from "@millrace/workers/slot/engine.js";
import { missingLocale } from "@millrace/workers/slot/missing-locale.js";
import { Tensor } from "onnxruntime-node";
import { describe, expect, test } from "vitest";
import { root } from "../support/run/tools.js";

const file = join(root, "test/fixtures/real-graphs/sklearn/sklearn-tfidf.onnx");
const { stdout } = spawnSync("locale", ["-a"], { encoding: "utf8" });
const installed = /^en_US\.utf-?8$/im.test(stdout ?? "");

describe("TF-IDF of scikit-learn", () => {
  test("runs where the locale en_US.UTF-8 is installed, and is refused with the remedy elsewhere", async () => {
    const opening = openEngine({ file, manifest: { output: { head: "tensors" } } } as unknown as LoadRequest);
    if (!installed) {
      const reason = await opening.then(
        () => "",
        (fault: Error) => fault.message,
      );
      expect(reason).toContain("needs the locale en_US.UTF-8, which this machine lacks: install it");
      expect(reason).toContain("localedef -i en_US -f UTF-8 en_US.UTF-8");
      expect(reason).not.toMatch(/onnxruntime_src|::/);
      return;
    }
    const engine = await opening;
    const [input] = engine.inputs;
    const ran = await engine.run({ [input?.name as string]: new Tensor("string", ["Hello"], [1]) });
    expect(Object.keys(ran).length).toBeGreaterThan(0);
    await engine.close();
  });

  test("the remedy names the model's own locale, and other faults have none", () => {
    const thrown = "Failed to construct locale with name:tr_TR.UTF-8:locale::facet::_S_create_c_locale name not valid";
    expect(missingLocale(thrown)).toContain("localedef -i tr_TR -f UTF-8 tr_TR.UTF-8");
    expect(missingLocale("Protobuf parsing failed.")).toBeNull();
  });
});
