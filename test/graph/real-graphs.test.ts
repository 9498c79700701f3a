import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import type { Dtype } from "@millrace/shared/tensors/dtype.js";
import { proveRows } from "@millrace/workers/graph/prove-rows.js";
import { readOnnx } from "@millrace/workers/graph/read-onnx.js";
import type { InferenceSession } from "onnxruntime-node";
import { expect, test } from "vitest";
import { compareJoined, type InputSpec, openSession, randomRequest } from "../support/models/joined-runs.js";
import { random } from "../support/random.js";

const folder = fileURLToPath(new URL("../fixtures/real-graphs/", import.meta.url));
const files = readdirSync(folder, { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".onnx"))
  .sort();

/** Graphs without a proof, with the reported reason. */
const unproven: Record<string, string> = {
  "catboost-classifier.onnx": "ZipMap: it is not known to keep rows apart",
  "lstm-time-first.onnx": 'LSTM "/LSTM_9": it carries a state along the row axis',
  "sklearn-logistic-zipmap.onnx": 'ZipMap "ZipMap": it is not known to keep rows apart',
  "sklearn-nearest.onnx": 'Scan "Sc_Scan": it has a subgraph, which is not analysed',
  "sklearn-tfidf.onnx": 'StringNormalizer "StringNormalizer": it is not known to keep rows apart',
};

/** Lengths of free dimensions in these runs, by name. */
const lengths: Record<string, number> = { sequence: 5, time: 4, height: 8, width: 12 };

function specsOf({ inputMetadata }: InferenceSession): InputSpec[] {
  return inputMetadata.map((input) => {
    if (!input.isTensor) throw new Error(`${input.name} is not a tensor`);
    const rest = input.shape.slice(1).map((d) => (typeof d === "number" ? d : (lengths[d] ?? 3)));
    const texts = ["red", "blue", "green"];
    const below = input.name === "attention_mask" ? 2 : 20;
    return { name: input.name, dtype: input.type as Dtype, rest, below, texts };
  });
}

test.each(files)("%s is proven or has a reason; joined runs of a proven one answer as alone", async (name) => {
  const proof = proveRows(readOnnx(`${folder}${name}`));
  expect(proof.proven ? null : proof.reason).toBe(unproven[basename(name)] ?? null);
  if (!proof.proven) return;
  const session = await openSession(readFileSync(`${folder}${name}`));
  const own = random(1);
  for (const counts of [[1, 1], [2, 1], [1, 3, 2], new Array<number>(9).fill(1)]) {
    const requests = counts.map((rows) => randomRequest(own, specsOf(session), rows));
    expect(await compareJoined(session, requests)).toEqual({ kind: "same" });
  }
  await session.release();
});

test("the fixtures hold at least 40 graphs and all of the unproven ones", () => {
  expect(files.length).toBeGreaterThanOrEqual(40);
  expect(Object.keys(unproven).filter((name) => !files.some((file) => basename(file) === name))).toEqual([]);
});
