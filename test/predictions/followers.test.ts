import { toldAtOnce } from "@millrace/shared/predictions/job.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { localWebhooks, openWebhookSink, type WebhookSink } from "../support/http/webhook-sink.js";
import { TestStack } from "../support/stack/stack.js";

const model = "echo-float32";
const most = 3 * toldAtOnce;

describe("submissions that are joined to one prediction", () => {
  let sink: WebhookSink;
  let stack: TestStack;
  let nextInput = 0;
  beforeAll(async () => {
    sink = await openWebhookSink();
    stack = await TestStack.start({
      models: [model],
      env: { ...localWebhooks, MAX_FOLLOWERS: String(most), MAX_QUEUE_DEPTH: String(5 * most) },
    });
  });
  afterAll(async () => {
    await stack?.close();
    await sink?.close();
  });
  afterEach(async () => {
    if (stack.workers.length === 0) await stack.startWorker();
  });

  /** Nothing ends before the test lets it: the model stays known without its worker. */
  const stopWorkers = () => Promise.all(stack.workers.splice(0).map((worker) => worker.stop()));
  const input = () => ({ x: [[nextInput++, 1, 2]] });
  const submit = (of: unknown, path: string, events = ["prediction.started", "prediction.completed"]) =>
    stack.post(`/v1/models/${model}/predictions`, { input: of, webhook: { url: sink.url(path), events } });
  const keys = () => modelKeys(stack.prefix, model);

  test("are at most MAX_FOLLOWERS, others get their own, and each is told of start and end once", async () => {
    await stopWorkers();
    const same = input();
    const answers = [];
    for (let i = 0; i < 2 * most; i++) answers.push(await submit(same, `/most/${i}`));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]));
    const ids = answers.map(({ body }) => body.id as string);
    const first = ids.slice(0, most + 1);
    expect(new Set(first).size).toBe(1);
    const second = ids.slice(most + 1);
    expect(new Set(second).size).toBe(1);
    expect(second[0]).not.toBe(first[0]);
    await stack.startWorker();
    const told = (i: number) => sink.at(`/most/${i}`).map(({ data, type }) => `${type} ${data.id}`);
    await eventually(() => {
      for (const [i, id] of ids.entries()) {
        expect(told(i).sort()).toEqual([`prediction.completed ${id}`, `prediction.started ${id}`]);
      }
    }, 30_000);
    expect(await stack.redis.exists(keys().joins, keys().ending)).toBe(0);
  });

  test("count against the queue's depth until their prediction ends", async () => {
    await stopWorkers();
    let accepted = 0;
    for (let i = 0; ; i++) {
      const answer = await submit(i % most === 0 ? input() : { x: [[nextInput - 1, 1, 2]] }, `/depth/${i}`);
      if (answer.status === 429) {
        assertProblem(answer, 429, "queue_full");
        break;
      }
      expect(answer.status).toBe(202);
      accepted += 1;
    }
    expect(accepted).toBe(5 * most);
    await stack.startWorker();
    await eventually(async () => expect((await submit(input(), "/depth/after")).status).toBe(202));
    await eventually(async () => expect(await stack.redis.exists(keys().joins)).toBe(0));
  });

  test("that a worker left behind when it died are told by another", async () => {
    const { body } = await submit(input(), "/left");
    await stack.final(body.id);
    const follower = (i: number) => ({
      owner: "alice",
      url: sink.url(`/left/${i}`),
      ids: { "prediction.completed": `${body.id.slice(0, 8)}${String(i).padStart(20, "0")}` },
    });
    // As the step leaves it that has told the first ones.
    const count = 2 * toldAtOnce + 3;
    const entries = Array.from({ length: count }, (_, i) => `f${JSON.stringify(follower(i))}`);
    await stack.redis.rpush(keys().interest(body.id), ...entries);
    await stack.redis.hset(keys().ending, body.id, "1");
    await eventually(() => {
      for (let i = 0; i < count; i++) expect(sink.at(`/left/${i}`)).toMatchObject([{ data: { id: body.id } }]);
    }, 30_000);
    expect(await stack.redis.exists(keys().ending, keys().interest(body.id))).toBe(0);
  });
});
