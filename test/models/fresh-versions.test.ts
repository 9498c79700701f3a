import { cp } from "node:fs/promises";
import { join } from "node:path";
import { announcementSchema } from "@millrace/shared/models/announcement.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { announceVersion } from "@millrace/shared/scripts/models/announce.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ndjson, types, upload } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { TestStack } from "../support/stack/stack.js";

const admin = { as: "admin" } as const;
const later = { headers: { prefer: "respond-async" } };
const model = "echo-float32";
const input = { x: [[1, 2, 3]] };
const row = { name: "x", datatype: "FP32", shape: [1, 3], data: [1, 2, 3] };

describe("a version that an API has not read yet", () => {
  let stack: TestStack;
  let last = 1;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: [model],
      apis: 2,
      timing: { api: { modelsRereadMs: 600_000 }, worker: { versionNoticedMs: 500 } },
    });
    // Both know version 1.
    for (const { url } of stack.apis) expect((await stack.get(`/v1/models/${model}`, { url })).status).toBe(200);
  });
  afterAll(() => stack.close());

  /** Announces one more version, as a worker does, which no API has read before. */
  async function announceNext(): Promise<string> {
    const { prefix, redis } = stack;
    const keys = modelKeys(prefix, model);
    const known = announcementSchema.parse(JSON.parse((await redis.hget(keys.versions, "1")) as string));
    const version = String(++last);
    const announcement = { ...known, version };
    await announceVersion(redis, prefix, keys, announcement, "elsewhere", Date.now());
    return version;
  }

  const rows = ndjson([input]);
  test.each<[string, number, (version: string) => Promise<{ status: number }>]>([
    ["a prediction", 202, (version) => stack.post(`/v1/models/${model}/predictions`, { input, version }, later)],
    ["a batch by its query", 202, (version) => upload(stack, model, rows, { query: `?version=${version}` })],
    [
      "a JSON batch by its query",
      202,
      (version) =>
        upload(stack, model, JSON.stringify({ inputs: [input] }), { type: types.json, query: `?version=${version}` }),
    ],
    [
      "a JSON batch before its inputs",
      202,
      (version) => upload(stack, model, JSON.stringify({ version, inputs: [input] }), { type: types.json }),
    ],
    [
      "a JSON batch after its inputs",
      202,
      (version) => upload(stack, model, JSON.stringify({ inputs: [input], version }), { type: types.json }),
    ],
    [
      "a request of the tensor API",
      202,
      (version) => stack.post(`/v2/models/${model}/versions/${version}/infer`, { inputs: [row] }, later),
    ],
    ["its metadata in the tensor API", 200, (version) => stack.get(`/v2/models/${model}/versions/${version}`)],
    ["its readiness in the tensor API", 200, (version) => stack.get(`/v2/models/${model}/versions/${version}/ready`)],
    [
      "its configuration in the tensor API",
      200,
      (version) => stack.get(`/v2/models/${model}/versions/${version}/config`),
    ],
    [
      "a change of the traffic",
      200,
      (version) =>
        stack.call("PUT", `/v1/models/${model}/traffic`, { ...admin, json: { weights: { [version]: 1, "1": 1 } } }),
    ],
  ])("is found by %s", async (_by, status, ask) => {
    expect(await ask(await announceNext())).toMatchObject({ status });
    const { status: unknown } = await ask("999");
    expect([404, 422]).toContain(unknown);
  });

  test("is known where another API has taken the prediction: waiting, and done", async () => {
    const [near, far] = stack.apis.map(({ url }) => ({ url }));
    const waits = await announceNext();
    const { body } = await stack.post(`/v1/models/${model}/predictions`, { input, version: waits }, near);
    const { digest } = (await stack.get(`/v1/models/${model}`, near)).body.versions[0];
    expect((await stack.get(`/v1/predictions/${body.id}`, far)).body).toMatchObject({
      ...{ version: waits, model_digest: digest },
    });
    const served = String(++last);
    await cp(join(stack.modelsDir, model, "1"), join(stack.modelsDir, model, served), { recursive: true });
    const done = await eventually(async () => {
      const answer = await stack.predict(model, input, { version: served }, near);
      expect(answer.status).toBe(200);
      return answer.body;
    });
    expect(done).toMatchObject({ version: served, output: { y: input.x } });
    const read = await stack.get(`/v1/predictions/${done.id}`, {
      ...far,
      headers: { accept: "application/vnd.open-inference+json" },
    });
    expect([read.status, read.body.outputs]).toEqual([200, [{ ...row, name: "y" }]]);
  });
});
