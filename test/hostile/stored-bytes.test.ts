import { gzipSync } from "node:zlib";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { keys, TestStack } from "../support/stack/stack.js";

/** Times that the store may take what was sent, which counts unpacked up to 20 times the packed bytes; and more. */
const mostRatio = 4;
const freeBytes = 4096;
const creditedRatio = 20;

const repeat = (row: string, rows: number) => row.repeat(rows);
const each = (rows: number, row: (i: number) => string) => Array.from({ length: rows }, (_, i) => row(i)).join("");

const wide = 100;
/** Many features that need not be sent, each with a default of its own. */
const defaults = Array.from({ length: wide }, (_, i) => ({ name: `f${i}`, type: "number", default: i / 7 }));
const tabular = { kind: "tabular", input: { tensor: "x", features: defaults }, output: { head: "raw" } };

/** A model that takes one input at a time must not make each a chunk of its own. */
const oneByOne = { kind: "tensor", batching: { max_batch_rows: 1 } };

const bodies: [name: string, type: string, body: string][] = [
  ["rows of a wrong kind", "application/x-ndjson", repeat("1\n", 300_000)],
  ["rows that are no JSON", "application/x-ndjson", repeat("{\n", 300_000)],
  ["two faults in turn", "application/x-ndjson", repeat("1\n{\n", 100_000)],
  ["faults that all differ", "application/x-ndjson", each(30_000, (i) => `{"f${i}x":1}\n`)],
  ["short faults that all differ", "application/x-ndjson", each(20_000, (i) => `["${i.toString(36)}"]\n`)],
  ["valid and invalid rows in turn", "application/x-ndjson", repeat("{}\n1\n", 50_000)],
  ["rows that are all defaults", "application/x-ndjson", repeat("{}\n", 100_000)],
  ["rows with one member each", "application/x-ndjson", each(30_000, (i) => `{"f${i % wide}":${i}}\n`)],
  ["a table of one column", "text/csv", `f1\n${each(50_000, (i) => `${i % 10}\n`)}`],
  ["inputs in an envelope", "application/json", `{"inputs":[${repeat("{},", 100_000)}1]}`],
  ["small tensors", "application/x-ndjson", each(20_000, (i) => `{"x":[[${i % 10},2,3]]}\n`)],
  ["one row", "application/x-ndjson", "1\n"],
];

describe("what an accepted batch takes in Redis is limited by what was sent", () => {
  const models = ["row-sums", "echo-float32"];
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models, manifests: { "row-sums": tabular, "echo-float32": oneByOne } });
  });
  afterAll(async () => {
    await stack?.close();
  });

  /** All that the store holds, but for counts by hour. */
  async function storeBytes(): Promise<number> {
    const redis = stack.redis as Redis;
    const names = await redis.keys(`${stack.prefix}:*`);
    const kept = names.filter((name) => !/\/statistics:|\/drift:|:stored:/.test(name));
    const sizes = await Promise.all(kept.map((name) => redis.memory("USAGE", name, "SAMPLES", 0)));
    return sizes.reduce<number>((sum, size) => sum + Number(size ?? 0), 0);
  }

  /** Sends a batch, and asserts what has come into the store when `settled` resolves. */
  async function assertStored(
    model: string,
    [, type, text]: (typeof bodies)[number],
    packed: boolean,
    settled: (id: string) => Promise<void>,
  ): Promise<void> {
    const body = packed ? gzipSync(text, { level: 9 }) : Buffer.from(text);
    const sent = packed ? Math.min(text.length, creditedRatio * body.length) : text.length;
    const before = await storeBytes();
    const response = await fetch(`${stack.url}/v1/models/${model}/batches`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${keys.alice}`,
        "content-type": type,
        ...(packed && { "content-encoding": "gzip" }),
      },
      body: new Uint8Array(body),
    });
    const { code, id } = (await response.json()) as { id: string; code?: string };
    if (response.status === 413 && packed) return;
    expect([response.status, code]).toEqual([202, undefined]);
    await settled(id);
    const grown = (await storeBytes()) - before;
    expect(grown).toBeGreaterThan(0);
    expect(grown, `${grown} bytes for ${sent}`).toBeLessThanOrEqual(mostRatio * sent + freeBytes);
  }

  const final = async (id: string) => {
    for (let tries = 0; tries < 6; tries++) {
      const { body } = await stack.get(`/v1/batches/${id}?wait=30`);
      if (body.finished_at !== null) return;
    }
    throw new Error("the batch did not end");
  };

  describe.each(models)("for the model %s", (model) => {
    const rows = bodies.filter(([name, type]) => /fault|kind|JSON|one row/.test(name) && type !== "text/csv");
    test.each(rows)("when it has ended: %s", async (...body) => {
      for (const packed of [false, true]) await assertStored(model, body, packed, final);
    });
  });

  describe("while no worker runs it", () => {
    beforeAll(async () => {
      await Promise.all(stack.workers.map((worker) => worker.stop()));
    });
    const pairs = models.flatMap((model) => bodies.map((body) => [model, ...body] as const));
    test.each(pairs.filter(([model, , type]) => model === "row-sums" || type !== "text/csv"))(
      "for the model %s: %s",
      async (model, ...body) => {
        for (const packed of [false, true]) await assertStored(model, body, packed, async () => undefined);
      },
    );
  });
});
