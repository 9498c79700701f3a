import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openUpload } from "../support/batches.js";
import { TestStack } from "../support/stack/stack.js";

describe("a body that unpacks to far more than was sent", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models: ["echo-float32"] });
  });
  afterAll(async () => {
    await stack?.close();
  });

  test.each([
    ["small rows", "[1,2,3]\n"],
    ["rows that are no JSON", "{\n"],
    ["spaces", " "],
    ["one long line", "a"],
  ])("is refused, and others are answered meanwhile: %s", async (_, text) => {
    const body = gzipSync(text.repeat(Math.floor((64 << 20) / text.length)), { level: 9 });
    const upload = openUpload(stack, "echo-float32", { headers: { "content-encoding": "gzip" } });
    upload.end(body);
    let isAnswered = false;
    const answered = upload.answer.finally(() => {
      isAnswered = true;
    });
    const others: number[] = [];
    do others.push((await stack.get("/v1/models")).status);
    while (!isAnswered);
    const { body: problem, status } = await answered;
    expect([status, problem.code]).toEqual([413, "body_too_large"]);
    expect(new Set(others)).toEqual(new Set([200]));
  });
});
