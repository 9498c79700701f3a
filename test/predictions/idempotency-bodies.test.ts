import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { canonicalJson } from "@millrace/shared/predictions/canonical-json.js";
import { digestOf } from "@millrace/shared/redis/digest.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { finalBatch, resultsOf, types, upload } from "../support/batches.js";
import { assertProblem } from "../support/http/problem.js";
import { type Random, random } from "../support/random.js";
import { keys, TestStack } from "../support/stack/stack.js";

const failing = "throws-on-row";

/** JSON of a value with the members of its objects in random order. */
function shuffled(value: unknown, r: Random): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((element) => shuffled(element, r))}]`;
  const members = Object.entries(value).sort(() => r.unit() - 0.5);
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${shuffled(member, r)}`)}}`;
}

test("canonical JSON is independent of the order of members and differs between values, 3,000 at random", () => {
  const r = random(61);
  const value = (depth: number): unknown => {
    const kind = r.below(depth > 3 ? 3 : 5);
    if (kind < 3) return r.pick([1, -0.5, "a", null, true, "", 1e21]);
    const inner = Array.from({ length: r.below(5) }, () => value(depth + 1));
    if (kind === 3) return inner;
    return Object.fromEntries(
      inner.map((member, i) => [r.pick(["a", "10", "9", "__proto__", "é", ""]) + (i || ""), member]),
    );
  };
  for (let round = 0; round < 3000; round++) {
    const one = value(0);
    const text = canonicalJson(one);
    expect(JSON.parse(text)).toEqual(one);
    expect(canonicalJson(JSON.parse(shuffled(one, r)))).toBe(text);
    expect(canonicalJson([one, 0])).not.toBe(canonicalJson([0, one]));
  }
});

describe("an Idempotency-Key is compared by content of the body", () => {
  let stack: TestStack;
  let used = 0;
  const newKey = () => `key-${++used}`;

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["echo-float32", failing],
      manifests: { [failing]: { kind: "tensor", attempts: 1, batching: { max_batch_rows: 1 } } },
    });
  });
  afterAll(() => stack.close());

  const send = (path: string, text: string, key: string, type: string = types.json) =>
    stack.call("POST", path, { text, headers: { "content-type": type, "idempotency-key": key } });
  const single = "/v1/models/echo-float32/predictions";
  const batches = "/v1/models/echo-float32/batches";

  const body = {
    input: { x: [[1, 2, 3]] },
    cache: false,
    metadata: { b: { d: 1, c: [2, { f: 3, e: 4 }] }, a: "x", "10": 1, "9": 2 },
    priority: 3,
    delay_ms: 3_600_000,
  };

  test("in any order of members, at any depth", async () => {
    const r = random(62);
    const key = newKey();
    const first = await send(single, JSON.stringify(body), key);
    expect(first.status).toBe(202);
    for (let i = 0; i < 20; i++) {
      const again = await send(single, shuffled(body, r), key);
      expect(again.headers.get("idempotency-replayed"), JSON.stringify(again.body)).toBe("true");
      expect(again.body.id).toBe(first.body.id);
    }
    const spelled = JSON.stringify(body).replace("[1,2,3]", "[1.0, 2e0, 3.00]");
    expect((await send(single, spelled, key)).body.id).toBe(first.body.id);
  });

  test.each([
    ["another order of an array", { ...body, input: { x: [[1, 3, 2]] } }],
    [
      "another order of an array in the metadata",
      { ...body, metadata: { ...body.metadata, b: { d: 1, c: [{ f: 3, e: 4 }, 2] } } },
    ],
    ["another member", { ...body, metadata: { ...body.metadata, c: 1 } }],
  ])("and refused with %s", async (_what, other) => {
    const key = newKey();
    expect((await send(single, JSON.stringify(body), key)).status).toBe(202);
    assertProblem(await send(single, JSON.stringify(other), key), 422, "idempotency_mismatch");
  });

  test("in a form that is compatible with the previous release", async () => {
    const key = newKey();
    const first = await send(single, JSON.stringify(body), key);
    const name = modelKeys(stack.prefix, "echo-float32").idempotency("alice", key);
    // The previous release stored a digest of the submission with its members in their original order, and the id.
    const former = {
      input: body.input,
      priority: 3,
      delay_ms: 3_600_000,
      expires_in_ms: 0,
      cache: false,
      metadata: body.metadata,
    };
    expect(await stack.redis.get(name)).toBe(`${digestOf(JSON.stringify(former))}|${first.body.id}`);
    expect(await stack.redis.ttl(`${name}:sorted`)).toBeGreaterThan(86_000);
    await stack.redis.del(`${name}:sorted`);
    expect((await send(single, JSON.stringify(body), key)).body.id).toBe(first.body.id);
  });

  test("of a JSON batch in any order of members, of an NDJSON batch by its bytes", async () => {
    const r = random(63);
    const inputs = [{ x: [[1, 2, 3]] }, { x: [["NaN", 2, 3]], y: { b: 1, a: 2 } }, [1, [2]], "é"];
    const envelope = { inputs, metadata: { b: 1, a: { d: 1, c: 2 } }, priority: 2, cache: true };
    const key = newKey();
    const first = await send(batches, JSON.stringify(envelope), key);
    expect(first.status).toBe(202);
    for (let i = 0; i < 10; i++) {
      const again = await send(batches, shuffled(envelope, r), key);
      expect([again.status, again.body.id], JSON.stringify(again.body)).toEqual([202, first.body.id]);
      expect(again.headers.get("idempotency-replayed")).toBe("true");
    }
    for (const other of [
      { ...envelope, inputs: [...inputs].reverse() },
      { ...envelope, inputs: inputs.slice(1) },
    ]) {
      assertProblem(await send(batches, JSON.stringify(other), key), 422, "idempotency_mismatch");
    }
    const lines = newKey();
    const line = await send(batches, '{"x":[[1,2,3]],"y":1}\n', lines, types.ndjson);
    expect((await send(batches, '{"x":[[1,2,3]],"y":1}\n', lines, types.ndjson)).body.id).toBe(line.body.id);
    assertProblem(await send(batches, '{"y":1,"x":[[1,2,3]]}\n', lines, types.ndjson), 422, "idempotency_mismatch");
  });

  test("of a tensor request in any order of members, and refused with other elements or parameters", async () => {
    const r = random(64);
    const asked = {
      id: "mine",
      parameters: { priority: 1, cache: false, own: { b: 1, a: 2 } },
      inputs: [{ name: "x", datatype: "FP32", shape: [1, 3], data: [1, 2, 3], parameters: { b: 1, a: 2 } }],
      outputs: [{ name: "y", parameters: { binary_data: false } }],
    };
    const path = "/v2/models/echo-float32/infer";
    const key = newKey();
    const first = await send(path, JSON.stringify(asked), key);
    expect(first.status).toBe(200);
    for (let i = 0; i < 10; i++) {
      const again = await send(path, shuffled(asked, r), key);
      expect([again.status, again.headers.get("location")]).toEqual([200, first.headers.get("location")]);
      expect(again.headers.get("idempotency-replayed")).toBe("true");
    }
    const [input] = asked.inputs;
    for (const other of [
      { ...asked, id: "another" },
      { ...asked, inputs: [{ ...input, data: [1, 2, 4] }] },
      { ...asked, parameters: { ...asked.parameters, own: { b: 2, a: 2 } } },
    ]) {
      expect((await send(path, JSON.stringify(other), key)).body.code).toBe("idempotency_mismatch");
    }
  });

  test("and may be sent once: two headers are refused on every path, even if they are equal", async () => {
    for (const [path, text] of [
      [single, JSON.stringify(body)],
      [batches, '{"inputs":[{"x":[[1,2,3]]}]}'],
      ["/v2/models/echo-float32/infer", '{"inputs":[]}'],
      ["/predict", '{"features":[]}'],
      ["/v1/failures/redrive", "{}"],
    ] as const) {
      for (const sent of [
        ["k1", "k2"],
        ["k1", "k1"],
        ['"k1"', "k1"],
      ]) {
        const headers = { authorization: `Bearer ${keys.alice}`, "content-type": types.json, "idempotency-key": sent };
        const posted = request(`${stack.url}${path}`, { method: "POST", headers, agent: false }).end(text);
        const [response] = (await once(posted, "response")) as [IncomingMessage];
        const answer = JSON.parse((await response.toArray()).join(""));
        expect([path, response.statusCode, answer.code]).toEqual([path, 400, "bad_header"]);
      }
    }
    // A comma within a key does not make two keys.
    const key = `${newKey()}, and more`;
    const first = await send(single, JSON.stringify(body), key);
    expect((await send(single, JSON.stringify(body), `"${key}"`)).body.id).toBe(first.body.id);
  });

  const retry = (path: string, key: string) => stack.call("POST", path, { headers: { "idempotency-key": key } });
  const failedOne = async (x = 100) => {
    const { body: prediction } = await stack.predict(failing, { x: [[x]] });
    expect(prediction.status).toBe("failed");
    return prediction.id as string;
  };

  test.each(["failed", "canceled"])(
    "for repeated and concurrent retries of a %s prediction, which make one",
    async (status) => {
      const make = async () => {
        if (status === "failed") return failedOne();
        const { id } = await stack.submit(failing, { x: [[5]] }, { delay_ms: 3_600_000 });
        expect((await stack.call("POST", `/v1/predictions/${id}/cancel`)).status).toBe(200);
        return id as string;
      };
      const [id, other] = [await make(), await make()];
      const key = newKey();
      const answers = await Promise.all(Array.from({ length: 6 }, () => retry(`/v1/predictions/${id}/retry`, key)));
      expect(answers.map((answer) => answer.status)).toEqual(new Array(6).fill(202));
      expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(1);
      const replayed = answers.filter((answer) => answer.headers.get("idempotency-replayed") === "true");
      expect(replayed).toHaveLength(5);
      const made = answers[0]?.body.id;
      await stack.final(made);
      const later = await retry(`/v1/predictions/${id}/retry`, `"${key}"`);
      expect(later.body).toMatchObject({ id: made, retry_of: id });
      expect(later.headers.get("location")).toBe(`/v1/predictions/${made}`);
      assertProblem(await retry(`/v1/predictions/${other}/retry`, key), 422, "idempotency_mismatch");
      expect((await retry(`/v1/predictions/${id}/retry`, newKey())).body.id).not.toBe(made);
    },
  );

  test("for repeated and concurrent retries of a batch, which make one", async () => {
    const make = async () => {
      const { body: batch } = await upload(stack, failing, '{"x":[[1]]}\n{"x":[[100]]}\n');
      return (await finalBatch(stack, batch.id)).id as string;
    };
    const [id, other] = [await make(), await make()];
    const key = newKey();
    const answers = await Promise.all(Array.from({ length: 6 }, () => retry(`/v1/batches/${id}/retry`, key)));
    expect(answers.map((answer) => answer.status)).toEqual(new Array(6).fill(202));
    expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(1);
    expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") === "true")).toHaveLength(5);
    const made = answers[0]?.body.id;
    expect(await finalBatch(stack, made)).toMatchObject({ retry_of: id, counts: { total: 1, failed: 1 } });
    expect(await resultsOf(stack, made)).toMatchObject([{ index: 0, first_index: 1, status: "failed" }]);
    expect((await retry(`/v1/batches/${id}/retry`, key)).body.id).toBe(made);
    assertProblem(await retry(`/v1/batches/${other}/retry`, key), 422, "idempotency_mismatch");
  });

  test("for repeated and concurrent redrives, which make one", async () => {
    await failedOne();
    const key = newKey();
    const path = "/v1/failures/redrive";
    const text = JSON.stringify({ model: failing, rate: 1000 });
    const answers = await Promise.all(Array.from({ length: 6 }, () => send(path, text, key)));
    expect(answers.map((answer) => answer.status)).toEqual(new Array(6).fill(202));
    expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(1);
    expect(answers.filter((answer) => answer.headers.get("idempotency-replayed") === "true")).toHaveLength(5);
    const { id } = answers[0]?.body ?? {};
    await stack.get(`/v1/failures/redrives/${id}?wait=20`);
    const again = await send(path, `{"rate":1000,"model":"${failing}"}`, key);
    expect(again.body).toMatchObject({ id, status: "succeeded" });
    expect(again.headers.get("location")).toBe(`/v1/failures/redrives/${id}`);
    assertProblem(await send(path, "{}", key), 422, "idempotency_mismatch");
  });
});
