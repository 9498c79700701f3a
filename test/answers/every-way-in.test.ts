import { fromFloat16Bits } from "@millrace/shared/tensors/float16.js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { finalBatch, resultsOf, submitBatch, types } from "../support/batches.js";
import { type InferTensor, infer } from "../support/http/infer.js";
import {
  differenceFrom,
  type Feeds,
  type GivenTensor,
  Reference,
  startWithModels,
} from "../support/models/made-models.js";
import { volume } from "../support/run/volume.js";
import type { TestStack } from "../support/stack/stack.js";
import { type GeneratedModel, type GeneratedRow, tabularModel, tensorModel } from "./generated-models.js";

/** Long form: `ANSWERS_MODELS=600 npm test -- test/answers/every-way-in.test.ts`; `ANSWERS_SEED` repeats a run. */
const modelCount = Number(process.env.ANSWERS_MODELS ?? volume(16, 64));
const seed = Number(process.env.ANSWERS_SEED ?? Date.now() % 1_000_000);
const rowsEach = 33;

const datatypes: Partial<Record<GivenTensor["dtype"], string>> = {
  ...{ float32: "FP32", float64: "FP64", float16: "FP16", int64: "INT64" },
};

const guarantee = "generated models give on every path the outputs of ONNX Runtime for each input alone";

describe(`${guarantee} (seed ${seed})`, () => {
  let stack: TestStack;
  const models = new Map<string, GeneratedModel>();
  const alone = new Map<string, Feeds[]>();

  beforeAll(async () => {
    const tables = fc.sample(tabularModel(rowsEach), { numRuns: Math.ceil(modelCount * 0.75), seed });
    const tensors = fc.sample(tensorModel(rowsEach), { numRuns: Math.floor(modelCount * 0.25), seed });
    for (const [i, model] of [...tables, ...tensors].entries()) {
      const name = `m${i}`;
      models.set(name, model);
      const reference = await Reference.open(model.graph);
      const answers: Feeds[] = [];
      for (const { feeds } of model.rows) answers.push(await reference.run(feeds));
      alone.set(name, answers);
      await reference.close();
    }
    stack = await startWithModels(Object.fromEntries(models), { slots: 2 });
  });
  afterAll(() => stack.close());

  /** The faults in a model's outputs for its rows, received by one path. */
  function faults(name: string, way: string, outputs: readonly unknown[]): string[] {
    const { expected, manifest, rows } = models.get(name) as GeneratedModel;
    return rows.flatMap((row, i) => {
      const wanted = expected((alone.get(name) as Feeds[])[i] as Feeds);
      const isRaw = (manifest as { kind: string }).kind === "tensor";
      // A value beyond the output's own type is an error on every path.
      if (!isRaw && numbersOf(wanted).some((value) => !Number.isFinite(value))) {
        const result = (outputs[i] ?? {}) as { code?: string; error?: { code?: string } | null };
        const code = result.code ?? result.error?.code;
        return code === "inference_failed" ? [] : [`${name} ${way} row ${i}: ${JSON.stringify(result)}`];
      }
      const fault = isRaw
        ? differenceFrom(wanted as Feeds, outputs[i], toleranceOf(name))
        : headDifference(wanted, outputs[i], toleranceOf(name));
      return fault === null ? [] : [`${name} ${way} row ${i} ${JSON.stringify(row.forms[0])}: ${fault}`];
    });
  }

  /** float16 has eleven significant bits, and the last may be rounded either way. */
  const toleranceOf = (name: string) => (models.get(name)?.graph.outputs.y?.[0] === "float16" ? 1e-3 : 1e-5);

  /** Calls `act` for every model, six at a time, so that several models run at once. */
  async function severalAtOnce(act: (name: string, model: GeneratedModel) => Promise<void>): Promise<void> {
    const left = models.entries();
    const one = async () => {
      for (const [name, model] of left) await act(name, model);
    };
    await Promise.all(Array.from({ length: 6 }, one));
  }

  async function assertEachModel(
    way: string,
    act: (name: string, model: GeneratedModel) => Promise<readonly unknown[] | null>,
  ) {
    const found: string[] = [];
    let tried = 0;
    await severalAtOnce(async (name, model) => {
      const outputs = await act(name, model);
      if (outputs === null) return;
      expect(outputs, name).toHaveLength(rowsEach);
      tried += outputs.length;
      found.push(...faults(name, way, outputs));
    });
    expect(found.slice(0, 5), `${found.length} faults`).toEqual([]);
    return tried;
  }

  const outputOf = async (name: string, input: unknown) => {
    const { body } = await stack.predict(name, input);
    return body.status === "succeeded" ? body.output : body;
  };
  const formOf = (row: GeneratedRow, i: number) => row.forms[i % row.forms.length];

  test("as single predictions, alone and beside 32 others", async () => {
    const tried = await assertEachModel("single, joined", (name, { rows }) =>
      Promise.all(rows.map((row, i) => outputOf(name, formOf(row, i)))),
    );
    expect(tried).toBeGreaterThanOrEqual(Math.min(2000, modelCount * rowsEach));
    for (const [name, { rows }] of models) {
      const [row] = rows as [GeneratedRow];
      const output = await outputOf(name, formOf(row, 1));
      expect(faults(name, "single, alone", [output]).filter((fault) => fault.includes(" row 0 "))).toEqual([]);
    }
  });

  const bulk = async (name: string, body: string, type: string) => {
    const { id } = await submitBatch(stack, name, body, { type });
    await finalBatch(stack, id);
    const lines = await resultsOf(stack, id);
    return lines.map(({ error, output }) => output ?? error);
  };

  test("as batches in JSON", async () => {
    await assertEachModel("json", (name, { rows }) =>
      bulk(name, JSON.stringify({ inputs: rows.map((row, i) => formOf(row, i)) }), types.json),
    );
  });

  test("as batches in NDJSON", async () => {
    await assertEachModel("ndjson", (name, { rows }) =>
      bulk(name, rows.map((row, i) => `${JSON.stringify(formOf(row, i + 1))}\n`).join(""), types.ndjson),
    );
  });

  test("as batches in CSV", async () => {
    await assertEachModel("csv", async (name, { header, rows }) =>
      header === null ? null : bulk(name, [header, ...rows.map(({ csv }) => csv), ""].join("\r\n"), types.csv),
    );
  });

  test.each(["JSON", "binary"])("over the tensor API in %s", async (form) => {
    const isBinary = form === "binary";
    await severalAtOnce(async (name, { rows }) => {
      const answers = await Promise.all(
        rows.map(({ tensors }) => {
          const inputs = Object.entries(tensors).map(([tensor, given]) => inferTensor(tensor, given, isBinary));
          const parameters = { cache: false, binary_data_output: isBinary };
          return infer(stack, name, { inputs, parameters });
        }),
      );
      for (const [i, { binary, body, status }] of answers.entries()) {
        expect(status, `${name} row ${i}: ${JSON.stringify(body)}`).toBe(200);
        for (const [output, wanted] of Object.entries((alone.get(name) as Feeds[])[i] as Feeds)) {
          const got = body.outputs.find((own: { name: string }) => own.name === output);
          expect(got.shape).toEqual(wanted.dims);
          const given: (number | string)[] = isBinary ? numbersIn(binary[output] as Buffer, wanted.dtype) : got.data;
          const data = given.map((value) => (Number.isFinite(value) ? value : String(value)));
          const flat = { [output]: { ...wanted, dims: [wanted.data.length] } } as Feeds;
          expect(differenceFrom(flat, { [output]: data }, toleranceOf(name)), `${name} row ${i}`).toBeNull();
        }
      }
    });
  });
});

function inferTensor(name: string, { data, dims, dtype }: GivenTensor, isBinary: boolean): InferTensor {
  const tensor = { name, datatype: datatypes[dtype] as string, shape: dims };
  if (!isBinary) return { ...tensor, data };
  const array =
    dtype === "int64" ? BigInt64Array.from(data, (value) => BigInt(value)) : Float32Array.from(data as number[]);
  return { ...tensor, bytes: new Uint8Array(array.buffer) };
}

function numbersIn(bytes: Buffer, dtype: GivenTensor["dtype"]): number[] {
  const own = new Uint8Array(bytes).buffer;
  if (dtype === "int64") return Array.from(new BigInt64Array(own), Number);
  if (dtype === "float16") return Array.from(new Uint16Array(own), fromFloat16Bits);
  return Array.from(dtype === "float64" ? new Float64Array(own) : new Float32Array(own));
}

/** The difference of a head's output from the wanted one, or null. Of two equally likely labels either may win. */
function headDifference(wanted: unknown, given: unknown, tolerance: number): string | null {
  const largest = Math.max(...numbersOf(wanted).map(Math.abs));
  const tie = wanted as { label?: string; confidence?: number; probabilities?: Record<string, number> };
  const own = given as { label?: string } | null;
  const isTie =
    tie.probabilities !== undefined &&
    typeof own?.label === "string" &&
    Math.abs((tie.probabilities[own.label] ?? 9) - (tie.confidence as number)) <= tolerance * largest;
  return difference(isTie ? { ...tie, label: own?.label } : wanted, given, tolerance * largest);
}

const numbersOf = (value: unknown): number[] =>
  typeof value === "number"
    ? [value]
    : typeof value === "object" && value !== null
      ? Object.values(value).flatMap(numbersOf)
      : [];

function difference(wanted: unknown, given: unknown, allowed: number): string | null {
  if (typeof wanted === "number" && typeof given === "number" && Math.abs(wanted - given) <= allowed) return null;
  if (typeof wanted !== "object" || wanted === null || typeof given !== "object" || given === null) {
    return wanted === given ? null : `expected ${JSON.stringify(wanted)}, got ${JSON.stringify(given)?.slice(0, 300)}`;
  }
  const keys = Object.keys(wanted);
  if (keys.sort().join() !== Object.keys(given).sort().join()) return `got ${JSON.stringify(given).slice(0, 300)}`;
  for (const key of keys) {
    const fault = difference(
      (wanted as Record<string, unknown>)[key],
      (given as Record<string, unknown>)[key],
      allowed,
    );
    if (fault !== null) return `${key}: ${fault}`;
  }
  return null;
}
