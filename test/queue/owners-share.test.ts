import { afterEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { scrape } from "../support/http/scrape.js";
import { TestStack } from "../support/stack/stack.js";

const model = "slow";

describe("owners who share a model", () => {
  let stack: TestStack;
  afterEach(() => stack.close());

  const submitMany = async (count: number, as: "alice" | "bob", x: number[][] = [[1]]) => {
    const ids: string[] = [];
    while (ids.length < count) {
      const part = Array.from({ length: Math.min(100, count - ids.length) }, () =>
        stack.submit(model, { x }, { cache: false }, { as }),
      );
      for (const { id } of await Promise.all(part)) ids.push(id);
    }
    return ids;
  };
  const waiting = () => scrape(stack.url, "ml_queue_depth", { model, state: "waiting" });

  test("a single job is done while another's backlog still waits, and two backlogs take turns", async () => {
    const manifest = { kind: "tensor", batching: { max_batch_rows: 4 } };
    stack = await TestStack.start({ models: [model], manifests: { [model]: manifest } });
    await stack.workers[0]?.stop();
    await submitMany(700, "alice", [[20]]);
    const [single] = await submitMany(1, "bob");
    expect((await stack.get(`/v1/predictions/${single}`, { as: "bob" })).body.queue_position).toBe(1);
    await stack.startWorker();
    const { body } = await stack.get(`/v1/predictions/${single}?wait=60`, { as: "bob" });
    expect(body.status).toBe("succeeded");
    expect(await waiting()).toBeGreaterThan(500);
    const backlog = await submitMany(40, "bob");
    await eventually(async () => {
      const last = await stack.get(`/v1/predictions/${backlog.at(-1)}`, { as: "bob" });
      expect(last.body.status).toBe("succeeded");
    });
    expect(await waiting()).toBeGreaterThan(200);
  });

  test("a queue that is full for one owner accepts from another, and answers with Retry-After", async () => {
    stack = await TestStack.start({
      models: [model],
      env: { MAX_QUEUE_DEPTH: "10", MAX_OWNER_PART: "0.5", MAX_QUEUE_ROWS: "20" },
    });
    await stack.workers[0]?.stop();
    await submitMany(5, "alice");
    const refused = await stack.post(`/v1/models/${model}/predictions`, { input: { x: [[1]] } });
    expect([refused.status, refused.body.code]).toEqual([429, "queue_full"]);
    expect(refused.body.detail).toBe("The queue is full: 5 predictions of yours are waiting for this model.");
    expect(Number(refused.headers.get("retry-after"))).toBe(30);
    await submitMany(1, "bob", Array(14).fill([1]));
    const rows = await stack.post(`/v1/models/${model}/predictions`, { input: { x: [[1]] } }, { as: "bob" });
    expect([rows.status, rows.body.detail]).toEqual([
      429,
      "The queue is full: 14 rows of yours are waiting for this model.",
    ]);
    await stack.startWorker();
    await eventually(async () => expect(await waiting()).toBe(0));
    await submitMany(1, "alice");
  });

  test("rows of unfinished batches count against the limit of rows, of all owners and of one", async () => {
    stack = await TestStack.start({ models: [model], env: { MAX_QUEUE_ROWS: "100", MAX_OWNER_PART: "0.5" } });
    await stack.workers[0]?.stop();
    const rows = `${Array.from({ length: 60 }, () => '{"x":[[1]]}').join("\n")}\n`;
    const send = (as: "alice" | "bob") =>
      stack.call("POST", `/v1/models/${model}/batches`, {
        as,
        text: rows,
        headers: { "content-type": "application/x-ndjson" },
      });
    expect((await send("alice")).status).toBe(202);
    const refused = await send("alice");
    expect([refused.status, refused.body.code]).toEqual([429, "queue_full"]);
    expect(refused.body.detail).toBe("The queue is full: 60 rows of yours are waiting for this model.");
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
    expect((await send("bob")).status).toBe(202);
    expect((await send("bob")).body.detail).toBe("The queue is full: 120 rows are waiting for this model.");
    await stack.startWorker();
    await eventually(async () => expect((await send("alice")).status).toBe(202));
  });
});
