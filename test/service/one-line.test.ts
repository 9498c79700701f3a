import { oneLine } from "@millrace/shared/service/one-line.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { finalBatch, submitBatch } from "../support/batches.js";
import { keys, TestStack } from "../support/stack/stack.js";

const model = "echo-string";
const breaks = "a\u2028b\u2029c\u0085d";
const anyBreak = /[\u0085\u2028\u2029]/;

test("oneLine keeps the value of JSON and escapes every character that may end a line", () => {
  const value = { [breaks]: breaks, rest: 'é日"\\u2028\\\u2028' };
  const line = oneLine(JSON.stringify(value));
  expect(line).not.toMatch(anyBreak);
  expect(JSON.parse(line)).toEqual(value);
  expect(oneLine('{"a":1}')).toBe('{"a":1}');
});

describe("characters that some readers treat as line ends", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
  });
  afterAll(() => stack.close());

  const read = async (path: string, accept: string) => {
    const headers = { authorization: `Bearer ${keys.alice}`, accept };
    return (await fetch(`${stack.url}${path}`, { headers })).text();
  };

  test("are escaped in NDJSON and CSV results, in outputs and in errors", async () => {
    const inputs = [{ x: [[breaks, "b", "c"]] }, { x: [["a", "b", "c"]], [breaks]: 1 }];
    const { id } = await submitBatch(stack, model, inputs.map((input) => JSON.stringify(input)).join("\n"));
    await finalBatch(stack, id);
    const text = await read(`/v1/batches/${id}/results`, "application/x-ndjson");
    expect(text).not.toMatch(anyBreak);
    const lines = text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines[0].output).toEqual({ y: [[breaks, "b", "c"]] });
    expect(lines[1].error.detail).toContain(breaks);
    expect(await read(`/v1/batches/${id}/results`, "text/csv")).not.toMatch(anyBreak);
  });

  test("are escaped in server-sent events of predictions and batches", async () => {
    const metadata = { [breaks]: breaks };
    const { id } = await stack.submit(model, { x: [[breaks, "b", "c"]] }, { metadata });
    const ofPrediction = await read(`/v1/predictions/${id}/events`, "text/event-stream");
    const query = `?metadata=${encodeURIComponent(JSON.stringify(metadata))}`;
    const batch = await submitBatch(stack, model, '{"x":[["a","b","c"]]}\n', { query });
    const ofBatch = await read(`/v1/batches/${batch.id}/events`, "text/event-stream");
    for (const text of [ofPrediction, ofBatch]) {
      expect(text).not.toMatch(anyBreak);
      const last = text.trimEnd().split("data: ").at(-1) as string;
      expect(JSON.parse(last)).toMatchObject({ status: "succeeded", metadata });
    }
    expect((await stack.get(`/v1/predictions/${id}`)).body.output).toEqual({ y: [[breaks, "b", "c"]] });
  });
});
