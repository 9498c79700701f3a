import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runBatch, types, upload } from "../support/batches.js";
import { assertProblem } from "../support/http/problem.js";
import { keys, TestStack } from "../support/stack/stack.js";

const model = "echo-string";
const latin1 = (text: string) => Buffer.from(text, "latin1");

describe("invalid UTF-8 is refused, never changed", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
  });
  afterAll(() => stack.close());

  const send = async (path: string, body: Buffer, type = "application/json") => {
    const headers = { authorization: `Bearer ${keys.alice}`, "content-type": type };
    const response = await fetch(`${stack.url}${path}`, { method: "POST", headers, body: new Uint8Array(body) });
    return { status: response.status, headers: response.headers, body: await response.json() };
  };

  test("in NDJSON only its row fails", async () => {
    const body = Buffer.concat([
      Buffer.from('{"x":[["é","b","c"]]}\n'),
      latin1('{"x":[["\xe9","b","c"]]}\n'),
      latin1('{"x\xff":[["a","b","c"]]}\n'),
      Buffer.from('{"x":[["\\u00e9","\ufffd","c"]]}\n'),
    ]);
    const { batch, results } = await runBatch(stack, model, body);
    expect(batch.counts).toMatchObject({ succeeded: 2, failed: 2 });
    const failed = { status: "failed", error: { code: "malformed_json", detail: "the line is not UTF-8" } };
    expect(results).toMatchObject([
      { output: { y: [["é", "b", "c"]] } },
      failed,
      failed,
      { output: { y: [["é", "\ufffd", "c"]] } },
    ]);
  });

  test.each([
    ["in an input", '{"inputs":[{"x":[["a","b","c"]]},{"x":[["\xe9","b","c"]]}]}'],
    ["beside the inputs", '{"metadata":{"a":"\xe9"},"inputs":[{"x":[["a","b","c"]]}]}'],
    ["after the inputs", '{"inputs":[{"x":[["a","b","c"]]}],"metadata":{"\xff":1}}'],
  ])("in a JSON batch %s: 400", async (_where, text) => {
    assertProblem(await upload(stack, model, latin1(text), { type: types.json }), 400, "malformed_json");
  });

  test.each([
    ["/v1/models/echo-string/predictions", '{"input":{"x":[["\xe9","b","c"]]}}'],
    [
      "/v2/models/echo-string/infer",
      '{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,3],"data":["\xff","b","c"]}]}',
    ],
    ["/v2/models/echo-string/infer", '{"id":"\xff","inputs":[]}'],
    ["/predict/intent", '{"query":"\xe9"}'],
    ["/predict/anomaly", '{"amount":1,"date":"2026-01-31\xff"}'],
    ["/v1/failures/redrive", '{"model":"\xff"}'],
  ])("in a request to %s: 400", async (path, text) => {
    assertProblem(await send(path, latin1(text)), 400, "malformed_json");
  });

  test.each(["%FF", "%E9", "%ED%A0%80", "%"])("in a query (%s): 400", async (bytes) => {
    const query = `?metadata={%22a%22:%22${bytes}%22}`;
    const answer = await upload(stack, model, '{"x":[["a","b","c"]]}\n', { query });
    assertProblem(answer, 400, "bad_query");
    assertProblem(await stack.get(`/v1/predictions?model=${bytes}`), 400, "bad_query");
  });
});
