import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fetchInference, infer, inferBody } from "../support/http/infer.js";
import { assertProblem } from "../support/http/problem.js";
import { keys, TestStack } from "../support/stack/stack.js";

const MiB = 1 << 20;
const binaryOut = { parameters: { binary_data_output: true } };

/** Generated rows of three float32, all different, as bytes. */
function rows(megabytes: number, first = 0): { shape: number[]; bytes: Buffer; values: Float32Array } {
  const count = Math.floor((megabytes * MiB) / 12);
  const values = new Float32Array(3 * count);
  for (let i = 0; i < values.length; i++) values[i] = first + i / 4;
  return { shape: [count, 3], bytes: Buffer.from(values.buffer), values };
}

describe("large tensors", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["echo-float32", "row-sums", "throws-on-row", "slow"],
      env: { RESULT_TTL_SECONDS: "600" },
      slots: 2,
    });
  });
  afterAll(() => stack.close());

  const blobsOf = (model: string) => stack.redis.keys(`${modelKeys(stack.prefix, model).base}/blob:*`);
  /** Keys of waiting inputs, the only blobs without expiry. */
  const inputsOf = async (model: string) => {
    const keys = await blobsOf(model);
    const ttls = await Promise.all(keys.map(ttlOf));
    return keys.filter((_, i) => ttls[i] === -1);
  };
  const ttlOf = (key: string | undefined) => stack.redis.ttl(key as string);
  const inputOf = ({ bytes, shape }: { bytes: Uint8Array; shape: number[] }) => ({
    inputs: [{ name: "x", datatype: "FP32", shape, bytes }],
  });

  test("are stored as bytes in their own keys: the input until the end, the output for the result time", async () => {
    const large = rows(3);
    const answer = await infer(stack, "echo-float32", { ...inputOf(large), ...binaryOut });
    expect(answer.status, answer.text.slice(0, 500)).toBe(200);
    expect(answer.binary.y?.equals(large.bytes)).toBe(true);
    const id = answer.headers.get("location")?.split("/").at(-1) as string;
    const left = await blobsOf("echo-float32");
    expect(left).toHaveLength(1);
    expect(left[0]).not.toContain(id);
    expect(await ttlOf(left[0])).toBeGreaterThan(500);
    expect(await ttlOf(left[0])).toBeLessThanOrEqual(660);

    const fetched = await fetchInference(stack, id, "application/octet-stream");
    expect(fetched.binary.y?.equals(large.bytes)).toBe(true);
    const plain = await stack.get(`/v1/predictions/${id}`);
    expect(plain.body).toMatchObject({ id, status: "succeeded" });
    expect(Float32Array.from(plain.body.output.y.flat())).toEqual(large.values);
    const listed = (await stack.get("/v1/predictions?model=echo-float32")).body.data;
    expect(listed).toMatchObject([{ id, status: "succeeded", output: null }]);
  });

  test("give the same result as JSON, streamed and compressed", async () => {
    const large = rows(1.5, 1);
    const asBytes = await infer(stack, "row-sums", inputOf(large));
    const data = [...large.values];
    const inputs = [{ name: "x", datatype: "FP32", shape: large.shape, data }];
    const asJson = await infer(stack, "row-sums", { inputs });
    expect(asJson.status, asJson.text.slice(0, 500)).toBe(200);
    expect(asJson.body.outputs).toEqual(asBytes.body.outputs);
    const echoed = await infer(stack, "echo-float32", { inputs }, { headers: { "accept-encoding": "gzip" } });
    expect(echoed.headers.get("content-encoding")).toBe("gzip");
    expect(echoed.body.outputs[0].data).toEqual(data);
  });

  test("of 32 MiB are returned bit by bit, while other requests are answered", async () => {
    const large = rows(32);
    const small = {
      inputs: [{ name: "x", datatype: "FP32", shape: [1, 3], data: [1, 2, 3] }],
      parameters: { cache: false },
    };
    let answered = 0;
    let done = false;
    const others = (async () => {
      while (!done) {
        const answer = await infer(stack, "row-sums", small);
        expect(answer.body.outputs?.[0].data, answer.text).toEqual([6]);
        answered += 1;
      }
    })();
    const answer = await infer(stack, "echo-float32", { ...inputOf(large), ...binaryOut });
    done = true;
    await others;
    expect(answer.binary.y?.equals(large.bytes), answer.text.slice(0, 500)).toBe(true);
    expect(answered).toBeGreaterThan(1);
  });

  test("in identical concurrent requests are joined, and leave no second input behind", async () => {
    const large = rows(2, 5);
    await Promise.all(stack.workers.splice(0).map((worker) => worker.stop()));
    const send = () => infer(stack, "row-sums", inputOf(large), { headers: { prefer: "respond-async" } });
    const [first, second] = [await send(), await send()];
    expect([second.body.id, second.body.deduplicated]).toEqual([first.body.id, true]);
    const waiting = await inputsOf("row-sums");
    expect(waiting.map((key) => key.split(":").at(-1))).toEqual([first.body.id]);
    await stack.startWorker();
    expect((await fetchInference(stack, first.body.id)).body.outputs[0].shape).toEqual([large.shape[0]]);
    expect(await inputsOf("row-sums")).toEqual([]);
  });

  test("of failed and canceled predictions keep their input for the result time, and can be retried", async () => {
    const count = MiB / 4;
    const bytes = Buffer.from(new BigInt64Array(count).fill(3n, 1).fill(99n, 0, 1).buffer);
    const input = { inputs: [{ name: "x", datatype: "INT64", shape: [count, 1], bytes }], id: "again" };
    const accepted = await infer(stack, "throws-on-row", input, { headers: { prefer: "respond-async" } });
    const failed = await stack.final(accepted.body.id);
    expect([failed.status, failed.error.code]).toEqual(["failed", "inference_failed"]);
    const [kept] = await blobsOf("throws-on-row");
    expect(kept).toContain(failed.id);
    expect(await ttlOf(kept)).toBeGreaterThan(500);
    const retried = await stack.post(`/v1/predictions/${failed.id}/retry`, {});
    expect(retried.status, JSON.stringify(retried.body)).toBe(202);
    const again = await stack.final(retried.body.id);
    expect([again.status, again.error, again.retry_of]).toEqual(["failed", failed.error, failed.id]);

    await Promise.all(stack.workers.splice(0).map((worker) => worker.stop()));
    const good = { ...input, inputs: [{ ...input.inputs[0], bytes: bytes.fill(0) }] } as typeof input;
    const waiting = await infer(stack, "throws-on-row", good, { headers: { prefer: "respond-async" } });
    expect((await stack.post(`/v1/predictions/${waiting.body.id}/cancel`, {})).body.status).toBe("canceled");
    const second = await stack.post(`/v1/predictions/${waiting.body.id}/retry`, {});
    await stack.startWorker();
    const answer = await fetchInference(stack, second.body.id);
    expect([answer.body.id, answer.body.outputs[0].shape]).toEqual(["again", [count, 1]]);
    expect(new Set(answer.body.outputs[0].data)).toEqual(new Set([0]));
  });

  test("leave nothing behind if their upload breaks off or they are refused", async () => {
    const { body, headers } = inferBody(inputOf(rows(2)));
    const before = (await stack.redis.keys(`${stack.prefix}*`)).length;
    const upload = new AbortController();
    const half = new ReadableStream({
      start: (controller) => {
        controller.enqueue(body.subarray(0, MiB));
        setTimeout(() => upload.abort(), 50);
      },
    });
    const broken = fetch(`${stack.url}/v2/models/row-sums/infer`, {
      ...{ method: "POST", duplex: "half", signal: upload.signal, body: half },
      headers: { authorization: `Bearer ${keys.alice}`, ...headers },
    } as RequestInit);
    await expect(broken).rejects.toThrow();
    const wrong = await infer(stack, "row-sums", {
      inputs: [{ name: "x", datatype: "FP32", shape: [1, 2], bytes: body }],
    });
    assertProblem(wrong, 400, "invalid_input");
    expect((await stack.redis.keys(`${stack.prefix}*`)).length).toBeLessThanOrEqual(before + 1);
  });
});
