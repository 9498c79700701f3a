import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { type Answer, keys, TestStack } from "../support/stack/stack.js";

const model = "deepfake-image";
const images = fileURLToPath(new URL("../fixtures/images/", import.meta.url));
const trainedFakeProb: Record<string, number> = JSON.parse(readFileSync(`${images}fake-prob.json`, "utf8"));
const names = Object.keys(trainedFakeProb);
const fileOf = (name: string) =>
  readFileSync(`${images}${name.endsWith("untouched.jpg") ? "untouched" : "tampered"}/${name}`);
const untouched = names.find((name) => name.endsWith("untouched.jpg")) as string;

describe("deepfake-image", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model], env: { MAX_FILE_BYTES: "1000000" } });
  });
  afterAll(() => stack?.close());

  /** Sends a multipart body as a browser or curl does. */
  const infer = async (
    fields: Record<string, Buffer | string>,
    headers: Record<string, string> = {},
  ): Promise<Answer> => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      if (typeof value === "string") form.append(name, value);
      else form.append(name, new Blob([new Uint8Array(value)], { type: "image/jpeg" }), "image.jpg");
    }
    const response = await fetch(`${stack.url}/infer`, {
      method: "POST",
      headers: { authorization: `Bearer ${keys.alice}`, ...headers },
      body: form,
    });
    return { status: response.status, headers: response.headers, body: await response.json() };
  };

  test("the documented request gets an answer in the field names of its existing clients", async () => {
    const { body, headers, status } = await infer({ file: fileOf(untouched) }, { "x-request-id": "image-1" });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(Object.keys(body)).toEqual(["request_id", "fake_prob", "real_prob", "inference_time_ms", "prediction_id"]);
    expect([body.request_id, headers.get("x-request-id")]).toEqual(["image-1", "image-1"]);
    expect(body.fake_prob + body.real_prob).toBeCloseTo(1, 5);
    const prediction = await stack.get(`/v1/predictions/${body.prediction_id}`);
    expect(prediction.body).toMatchObject({
      status: "succeeded",
      model,
      output: { probabilities: { fake: body.fake_prob, real: body.real_prob } },
    });
    const again = await stack.predict(model, fileOf(untouched).toString("base64"));
    expect(again.body.output.probabilities.fake).toBeCloseTo(body.fake_prob, 5);
  });

  test("held-out images: at least nine of ten right, and within 1e-3 of the training library", async () => {
    let right = 0;
    for (const name of names) {
      const { body, status } = await infer({ file: fileOf(name) });
      expect(status, JSON.stringify(body)).toBe(200);
      expect(Math.abs(body.fake_prob - (trainedFakeProb[name] as number)), name).toBeLessThanOrEqual(1e-3);
      if (body.fake_prob > 0.5 === !name.endsWith("untouched.jpg")) right += 1;
    }
    expect(names.length).toBeGreaterThan(30);
    expect(right / names.length).toBeGreaterThanOrEqual(0.9);
  });

  test("a missing, second or too large file, and a body that is not multipart, each get their own error", async () => {
    const file = fileOf(untouched);
    const refused = async (fields: Record<string, Buffer | string>, pointer: string) =>
      expect(pointersOf(assertProblem(await infer(fields), 422, "invalid_request"))).toEqual([pointer]);
    await refused({}, "/file");
    await refused({ image: file }, "/image");
    await refused({ file: "text" }, "/file");
    await refused({ file, other: file }, "/other");
    await refused({ file, note: "x" }, "/note");
    assertProblem(await infer({ file: Buffer.alloc(1_000_001) }), 413, "body_too_large");
    assertProblem(await stack.post("/infer", { file: "x" }), 415, "unsupported_media_type");
    const headers = { "content-type": "multipart/form-data; boundary=x" };
    assertProblem(await stack.call("POST", "/infer", { text: "no part", headers }), 400, "malformed_body");
    assertProblem(await stack.call("POST", "/infer", { text: "", headers, as: null }), 401, "unauthenticated");
  });

  test("a file that is no image, cannot be decoded or decodes to too many pixels is a 422 at /file", async () => {
    const bomb = Buffer.from(fileOf(untouched));
    // The frame header of a JPEG: marker, length, precision, then height and width.
    bomb.writeUInt32BE(0xea60ea60, bomb.indexOf(Buffer.from([0xff, 0xc0])) + 5);
    const whole = fileOf(untouched);
    for (const file of [Buffer.from("no image"), Buffer.alloc(0), bomb, whole.subarray(0, whole.length / 2)]) {
      expect(pointersOf(assertProblem(await infer({ file }), 422, "invalid_input"))).toEqual(["/file"]);
    }
  });
});
