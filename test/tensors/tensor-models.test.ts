import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { TestStack } from "../support/stack/stack.js";

const json = { "content-type": "application/json" };

/** JSON of rows of three, which must be returned as the same values. */
const echoes: Record<string, string> = {
  bool: "[[true,false,true],[false,false,true]]",
  int8: "[[-128,127,0]]",
  int16: "[[-32768,32767,-1]]",
  int32: "[[-2147483648,2147483647,7]]",
  int64: '[["-9223372036854775808","9223372036854775807",-9007199254740991],["9007199254740993",0,-1]]',
  uint8: "[[0,255,128]]",
  uint16: "[[0,65535,256]]",
  uint32: "[[0,4294967295,2147483648]]",
  uint64: '[["18446744073709551615",9007199254740991,0]]',
  float16: "[[65504,-0.0,5.960464477539063e-8],[1.5,-0.0999755859375,2048]]",
  float32: "[[3.4028234663852886e38,1.401298464324817e-45,-0.0],[0.5,-16777216,0.10000000149011612]]",
  float64: "[[1.7976931348623157e308,5e-324,0.1],[-0.0,9007199254740993,1e-7]]",
  string: '[["größe","😀 日本 e\\u0301",""],["\\"\\\\\\n\\t\\u0001","null"," "]]',
};

/** Values that a type cannot represent; 1e400 parses as infinity. */
const unfit: Record<string, string[]> = {
  bool: ["1", '"true"', "null"],
  int8: ["128", "-129", "1.5", '"x"', "true", "null"],
  int16: ["32768", "[1]"],
  int32: ["2147483648", "1e400", '"1.0"'],
  int64: ["9007199254740993", '"9223372036854775808"', '"-9223372036854775809"', '"0x10"', '""'],
  uint8: ["256", "-1"],
  uint16: ["65536", "{}"],
  uint32: ["4294967296", '"-1"'],
  uint64: ['"18446744073709551616"', "-1"],
  float16: ["65520", '"1"', "null"],
  float32: ["1e39", "1e400", '"nan"', '"+Infinity"', '"1234567890123456"', "null", "[1]"],
  float64: ["1e400", "-1e400", "false"],
  string: ["1", "null", '"a\\u0000b"'],
};

const others = ["scalars", "two-in-two-out", "fixed", "dynamic-inner", "batch-mean", "row-swap-shape"];

describe("models without a manifest", () => {
  let stack: TestStack;

  beforeAll(async () => {
    const echo = Object.keys(echoes).map((dtype) => `echo-${dtype}`);
    stack = await TestStack.start({ models: [...echo, ...others, "zipmap", "broken"], slots: 2 });
  });
  afterAll(() => stack.close());

  const predictText = (model: string, input: string) =>
    stack.call("POST", `/v1/models/${model}/predictions`, {
      text: `{"input":${input}}`,
      headers: { ...json, prefer: "wait=30" },
    });
  const outputOf = async (model: string, input: unknown) => {
    const { body } = await stack.predict(model, input);
    expect(body.status, JSON.stringify(body)).toBe("succeeded");
    return body.output;
  };
  test.each(Object.entries(echoes))("%s is returned exactly as sent", async (dtype, rows) => {
    const { body } = await predictText(`echo-${dtype}`, `{"x":${rows}}`);
    expect(body.status, JSON.stringify(body)).toBe("succeeded");
    expect(body.output).toEqual({ y: JSON.parse(rows) });
  });

  test.each(Object.entries(unfit))("%s refuses all values that it cannot represent, at once", async (dtype, values) => {
    const fine = (JSON.parse(echoes[dtype] as string) as unknown[][])[0] as unknown[];
    const rows = values.map((value) => `[${JSON.stringify(fine[0])},${value},${JSON.stringify(fine[2])}]`);
    const answer = await predictText(`echo-${dtype}`, `{"x":[${rows}]}`);
    expect(pointersOf(assertProblem(answer, 422, "invalid_input"))).toEqual(values.map((_, i) => `/input/x/${i}/1`));
  });

  test("a 64-bit integer may be a number or a decimal string", async () => {
    expect(await outputOf("echo-int64", { x: [[1, "2", "-3"]] })).toEqual({ y: [[1, 2, -3]] });
  });

  test("a string that UTF-8 cannot encode is refused or returned unchanged, never altered", async () => {
    const { body, status } = await predictText("echo-string", '{"x":[["\\ud800","a","b"]]}');
    if (status !== 422) expect(body.output).toEqual({ y: [["\ud800", "a", "b"]] });
  });

  test.each<[string, string, string[]]>([
    ["echo-int32", '{"x":[[1,2]]}', ["/x"]],
    ["echo-int32", '{"x":[1,2,3]}', ["/x"]],
    ["echo-int32", '{"x":1}', ["/x"]],
    ["echo-int32", '{"x":[[[1],2,{}]]}', ["/x/0/0", "/x/0/2"]],
    ["echo-int32", '{"x":[[1,2,3],[1,2],3]}', ["/x/1", "/x/2"]],
    ["echo-int32", '{"y":[[1,2,3]]}', ["/x", "/y"]],
    ["echo-int32", "[[1,2,3]]", [""]],
    ["scalars", '{"a":[1],"b":2}', ["/a"]],
    ["fixed", '{"x":[[1,2,3,4],[1,2,3,4]]}', ["/x"]],
    ["dynamic-inner", '{"x":[[1],[1,2]]}', ["/x/1"]],
    ["two-in-two-out", '{"ids":[[1,2]],"weights":[[1,2],[3,4]]}', ["/weights"]],
  ])("%s refuses the shape of %s, with pointers", async (model, input, pointers) => {
    const body = assertProblem(await predictText(model, input), 422, "invalid_input");
    expect(pointersOf(body)).toEqual(pointers.map((pointer) => `/input${pointer}`));
  });

  test("scalars are bare values", async () => {
    expect(await outputOf("scalars", { a: 2, b: 3.5 })).toEqual({ sum: 5.5, product: 7 });
    const many = await Promise.all(Array.from({ length: 20 }, (_, i) => outputOf("scalars", { a: i, b: 2 })));
    expect(many).toEqual(many.map((_, i) => ({ sum: i + 2, product: 2 * i })));
  });

  test("several inputs and outputs keep their names, types and rows, together in one run too", async () => {
    const weights = [
      [0.5, 1],
      [2, 0.25],
    ];
    const ids = (i: number) =>
      [
        [i, 2],
        ["3", 4],
      ] as const;
    const many = await Promise.all(
      Array.from({ length: 30 }, (_, i) => outputOf("two-in-two-out", { ids: ids(i), weights })),
    );
    expect(many).toEqual(
      many.map((_, i) => ({ total: [i / 2 + 2, 7], ids_out: ids(i).map((row) => row.map(Number)) })),
    );
  });

  test("requests for a fixed first dimension run one by one", async () => {
    const many = await Promise.all(Array.from({ length: 20 }, (_, i) => outputOf("fixed", { x: [[i, 1, 2, 3]] })));
    expect(many).toEqual(many.map((_, i) => ({ y: [[2 * i, 2, 4, 6]] })));
  });

  test("concurrent rows of different inner size each get their own result", async () => {
    const row = (i: number) => Array.from({ length: 1 + (i % 7) }, (_, k) => 100 * i + k);
    const many = await Promise.all(Array.from({ length: 60 }, (_, i) => outputOf("dynamic-inner", { x: [row(i)] })));
    expect(many).toEqual(many.map((_, i) => ({ y: [row(i).map((value) => value + 1)] })));
  });

  test("an empty dimension is a valid input, also among other rows", async () => {
    expect(await outputOf("echo-float32", { x: [] })).toEqual({ y: [] });
    expect(await outputOf("dynamic-inner", { x: [[], []] })).toEqual({ y: [[], []] });
    const inputs = Array.from({ length: 30 }, (_, i) => (i % 3 === 0 ? [] : [[i, 1, 2]]));
    const many = await Promise.all(inputs.map((x) => outputOf("echo-float32", { x })));
    expect(many).toEqual(inputs.map((y) => ({ y })));
  });

  test("a model whose outputs depend on the other rows of a run is never joined", async () => {
    const around = (i: number, mean: number) => [
      [mean - 1, -2 * i],
      [mean + 1, 2 * i],
    ];
    const many = await Promise.all(
      Array.from({ length: 40 }, (_, i) => outputOf("batch-mean", { x: around(i + 1, 10 * i) })),
    );
    expect(many).toEqual(many.map((_, i) => ({ y: around(i + 1, 0) })));
    expect((await stack.get("/v1/models/batch-mean")).body.batching.joinable).toBe(false);
  });

  test("a model with more output rows than input rows gives each request its own", async () => {
    const row = (i: number) => [i, -i - 1];
    const many = await Promise.all(Array.from({ length: 40 }, (_, i) => outputOf("row-swap-shape", { x: [row(i)] })));
    expect(many).toEqual(many.map((_, i) => ({ y: [row(i), row(i)] })));
  });

  test("refused models are reported in log, readiness and metrics, and the others are served", async () => {
    const worker = stack.workers[0] as (typeof stack.workers)[0];
    const base = `http://127.0.0.1:${worker.port}`;
    const ready = await fetch(`${base}/ready`);
    expect(ready.status).toBe(200);
    const state = (await ready.json()) as { models: { model: string }[]; refused: { model: string; reason: string }[] };
    expect(state.refused.map(({ model }) => model).sort()).toEqual(["broken", "zipmap"]);
    expect(state.models).toHaveLength(Object.keys(echoes).length + others.length);
    const reasonOf = (model: string) => state.refused.find((refused) => refused.model === model)?.reason;
    expect(reasonOf("zipmap")).toMatch(/"probabilities" is a map or a sequence.*zipmap': False/);
    expect(reasonOf("broken")).toMatch(/cannot be loaded/);
    expect(JSON.stringify(state)).not.toContain(stack.modelsDir);

    const logged = stack.logged("model cannot be served");
    expect(logged.map(({ level, model, reason }) => [level, model, reason]).sort()).toEqual(
      ["broken", "zipmap"].map((model) => ["error", model, reasonOf(model)]),
    );
    const metrics = await (await fetch(`${base}/metrics`)).text();
    expect(metrics).toContain('ml_model_loaded{model="zipmap",version="1"} 0');
    expect(metrics).toContain('ml_model_loaded{model="broken",version="1"} 0');
    expect(metrics).toContain('ml_model_loaded{model="fixed",version="1"} 1');
    assertProblem(await stack.predict("zipmap", { x: [[1, 2]] }), 404, "model_not_found");
  });
});
