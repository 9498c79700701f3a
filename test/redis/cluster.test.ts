import { modelKeys, redriveKeys, registryKey, sweeperKey, workersKey } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { Receiver, secretOf, verified } from "../support/http/receiver.js";
import { type OwnCluster, startOwnCluster } from "../support/redis/own-cluster.js";
import { assertNotified } from "../support/stack/assert-notified.js";
import { flow } from "../support/stack/flows.js";
import { timedBesideHealth, untilIdle } from "../support/stack/processes.js";
import { noticesOnly, TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const inputs: Record<string, unknown> = {
  [tree]: flow(1),
  "echo-int64": { x: [[1, 2, 3]] },
  "echo-float32": { x: [[4, 5, 6]] },
  "echo-uint8": { x: [[7, 8, 9]] },
  "throws-on-row": { x: [[5]] },
  slow: { x: [[1]] },
};
const models = Object.keys(inputs);
const secret = secretOf(3);

const redisCommandMs = 4000;

describe("six models on a cluster of three nodes", () => {
  let cluster: OwnCluster;
  let stack: TestStack;
  let receiver: Receiver;

  beforeAll(async () => {
    cluster = await startOwnCluster(3);
    receiver = await Receiver.start();
    stack = await TestStack.start({
      models,
      manifests: { slow: { kind: "tensor", batching: { max_batch_rows: 1 } } },
      apis: 2,
      redisUrl: cluster.url,
      // Six models at once make Redis late on a busy machine.
      timing: { api: { ...noticesOnly.api, redisCommandMs } },
      env: { WEBHOOK_SECRET: secret, WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
      workerEnv: { WEBHOOK_RETRY_SCHEDULE: "1,1,1" },
    });
  });
  afterAll(async () => {
    await stack?.close().finally(() => cluster.close());
    await receiver?.close();
  });

  const placeOf = (model: string) => cluster.nodeOf(modelKeys(stack.prefix, model).base);

  test("every key of a model is on the model's node, and the models are on at least two nodes", async () => {
    await Promise.all(models.map((model) => stack.predict(model, inputs[model])));
    const places = new Map<string, number>();
    for (const model of models) places.set(modelKeys(stack.prefix, model).base, await placeOf(model));
    expect(new Set(places.values()).size).toBeGreaterThanOrEqual(2);
    const redrives = redriveKeys(stack.prefix).base;
    places.set(redrives, await cluster.nodeOf(redrives));
    const found = new Set<string>();
    for (const node of cluster.nodes.keys()) {
      for (const key of (await cluster.ask(node, "KEYS", "*")) as string[]) {
        const base = key.slice(0, key.indexOf("}") + 1);
        if (key.startsWith(`${stack.prefix}:stored:`)) continue;
        if (base === "") expect([registryKey(stack.prefix), workersKey(stack.prefix)]).toContain(key);
        else if (base.endsWith(":{ready}") || base.includes(":{store-") || base === sweeperKey(stack.prefix)) continue;
        else expect([key, places.get(base)]).toEqual([key, node]);
        found.add(base);
      }
    }
    for (const base of places.keys()) expect(found).toContain(base);
  });

  test("each model's predictions are submitted on one API, and read, awaited and listed on the other", async () => {
    const other = { url: stack.apis[1]?.url as string };
    for (const model of models) {
      const answer = await stack.predict(model, inputs[model]);
      expect([answer.status, answer.body.status], JSON.stringify(answer.body)).toEqual([200, "succeeded"]);
      const submitted = await stack.submit(model, inputs[model]);
      expect((await stack.final(submitted.id, other)).output).toEqual(answer.body.output);
      expect((await stack.get(`/v1/predictions/${submitted.id}`, { ...other, as: "bob" })).status).toBe(404);
      const described = await stack.get(`/v1/models/${model}`, other);
      expect([described.status, described.body.name ?? described.body.id]).toEqual([200, model]);
    }
    const { body } = await stack.get("/v1/predictions?limit=100", other);
    expect(new Set(body.data.map((entry: { model: string }) => entry.model))).toEqual(new Set(models));
    const times = body.data.map((entry: { created_at: string }) => entry.created_at);
    expect(times).toEqual([...times].sort().reverse());
  });

  test("a notice reaches a wait for a slow run, on whichever nodes model and subscription are", async () => {
    for (const { url } of stack.apis) {
      const answer = await assertNotified(stack, { model: "slow", input: inputs.slow }, () =>
        stack.predict("slow", { x: [[700]] }, {}, { url }),
      );
      expect(answer.body.output).toEqual({ y: [[700]] });
    }
  });

  test("inputs and outputs too large for a job are stored on the model's node too", async () => {
    const x = Array.from({ length: 3000 }, (_, i) => [i, 1, 2]);
    for (const model of ["echo-int64", "echo-float32"]) {
      expect((await stack.predict(model, { x })).body.output.y).toEqual(x);
    }
  });

  test("an event stream sends the start and the end", async () => {
    const { id } = await stack.submit("slow", { x: [[300]] });
    const { body } = await stack.get(`/v1/predictions/${id}/events`);
    expect(body).toMatch(/"status":"running"[\s\S]*"status":"succeeded"/);
  });

  test("identical submissions are joined, cached and replayed", async () => {
    const path = "/v1/models/slow/predictions";
    const body = { input: { x: [[900]] } };
    const [first, second] = [await stack.post(path, body), await stack.post(path, body)];
    expect(second.body).toMatchObject({ id: first.body.id, deduplicated: true });
    await stack.final(first.body.id);
    const cached = await stack.post(path, body);
    expect([cached.status, cached.body.cached]).toEqual([200, true]);
    const headers = { "idempotency-key": "once" };
    for (const model of models) {
      const at = `/v1/models/${model}/predictions`;
      const once = await stack.post(at, { input: inputs[model], cache: false }, { headers });
      const again = await stack.post(at, { input: inputs[model], cache: false }, { headers });
      expect([again.body.id, again.headers.get("idempotency-replayed")]).toEqual([once.body.id, "true"]);
      expect((await stack.post(at, { input: inputs[model] }, { headers })).status).toBe(422);
    }
  });

  test("waiting, delayed and expiring predictions are canceled, started and expired in time", async () => {
    const running = await stack.submit("slow", { x: [[20_000]] });
    const waiting = await stack.submit("slow", { x: [[1]] }, { priority: 5 });
    const expiring = await stack.submit("slow", { x: [[1]] }, { expires_in_ms: 300 });
    // The slot is still busy here; once it is free, waiting predictions may start.
    expect((await stack.final(expiring.id)).status).toBe("expired");
    for (const { id } of [waiting, running]) {
      const canceled = await stack.post(`/v1/predictions/${id}/cancel`, undefined);
      expect([canceled.status, canceled.body.status]).toEqual([200, "canceled"]);
    }
    const retried = await stack.post(`/v1/predictions/${waiting.id}/retry`, undefined);
    expect(retried.status).toBe(202);
    expect((await stack.final(retried.body.id)).retry_of).toBe(waiting.id);
    const delayed = await stack.submit("echo-int64", { x: [[3, 2, 1]] }, { delay_ms: 500 });
    expect(delayed.status).toBe("scheduled");
    expect((await stack.final(delayed.id)).output).toEqual({ y: [[3, 2, 1]] });
  });

  test("webhooks of predictions and batches arrive, signed, and can be sent again", async () => {
    for (const model of models) {
      const url = receiver.url(`/${model}`);
      await stack.submit(model, inputs[model], { webhook: { url, events: ["prediction.completed"] } });
    }
    for (const model of models) {
      const [request] = await receiver.received(`/${model}`);
      expect(verified(secret, request as never)).toMatchObject({ data: { model, status: "succeeded" } });
    }
    const { id } = verified(secret, receiver.to("/slow")[0] as never).data;
    const tries = await eventually(async () => {
      const { body } = await stack.get(`/v1/predictions/${id}/deliveries`);
      expect(body.data[0].status ?? body.data[0].state).toBe("delivered");
      return body.data;
    });
    expect((await stack.post(`/v1/deliveries/${tries[0].id}/redeliver`, undefined)).status).toBe(202);
    await receiver.received("/slow", 2);
  });

  test("a batch of each model runs to its end, with its rows in order, and faulty ones fail alone", async () => {
    const batches = await Promise.all(
      models.map(async (model) => {
        const rows = Array.from({ length: 1200 }, (_, i) => (i === 1100 ? '"bad"' : JSON.stringify(inputs[model])));
        // So many at once may make Redis late on a busy machine; the resulting 503 is repeated.
        return eventually(async () => {
          const answer = await stack.call("POST", `/v1/models/${model}/batches`, {
            text: rows.join("\n"),
            headers: { "content-type": "application/x-ndjson", "idempotency-key": "batch" },
          });
          expect(answer.status, JSON.stringify(answer.body)).toBe(202);
          return answer.body.id as string;
        });
      }),
    );
    for (const [i, id] of batches.entries()) {
      const final = await eventually(async () => {
        const { body } = await stack.get(`/v1/batches/${id}?wait=20`);
        expect(["succeeded", "partial", "failed"]).toContain(body.status);
        return body;
      }, 60_000);
      expect(final).toMatchObject({ model: models[i], status: "partial", counts: { succeeded: 1199, failed: 1 } });
      const results = await stack.get(`/v1/batches/${id}/results`, { headers: { accept: "application/x-ndjson" } });
      const lines = (results.body as string).trim().split("\n");
      expect(lines).toHaveLength(1200);
      lines.forEach((line, index) => {
        expect(JSON.parse(line)).toMatchObject({ index, status: index === 1100 ? "failed" : "succeeded" });
      });
      const retried = await stack.post(`/v1/batches/${id}/retry`, undefined);
      expect(retried.status, JSON.stringify(retried.body)).toBe(202);
      const again = await eventually(async () => {
        const { body } = await stack.get(`/v1/batches/${retried.body.id}?wait=20`);
        expect(body.finished_at).not.toBeNull();
        return body;
      }, 60_000);
      expect(again).toMatchObject({ retry_of: id, status: "failed", counts: { total: 1, failed: 1 } });
    }
    const { body } = await stack.get("/v1/batches?limit=100");
    expect(new Set(body.data.map((entry: { model: string }) => entry.model))).toEqual(new Set(models));
    const canceled = await stack.post("/v1/models/slow/batches", {
      inputs: Array.from({ length: 4 }, () => ({ x: [[500]] })),
      webhook: { url: receiver.url("/canceled-batch") },
    });
    expect((await stack.post(`/v1/batches/${canceled.body.id}/cancel`, undefined)).body.status).toBe("canceled");
    const [webhook] = await receiver.received("/canceled-batch");
    expect(verified(secret, webhook as never)).toMatchObject({ type: "batch.completed", data: { status: "canceled" } });
  });

  test("failures of all models are redriven, on any node", async () => {
    const failed = await Promise.all([97, 98, 99].map((row) => stack.predict("throws-on-row", { x: [[row]] })));
    const [group] = (await stack.get("/v1/failures")).body.data;
    expect(group).toMatchObject({ model: "throws-on-row", code: "inference_failed", count: 3 });
    const { id } = (await stack.post("/v1/failures/redrive", {})).body;
    const end = await stack.get(`/v1/failures/redrives/${id}?wait=60`);
    expect(end.body).toMatchObject({ status: "succeeded", counts: { total: 3, redriven: 3 } });
    const { data } = (await stack.get("/v1/predictions?model=throws-on-row&limit=100")).body;
    const retried = data.flatMap(({ retry_of: of }: { retry_of: string | null }) => of ?? []);
    expect(retried.sort()).toEqual(failed.map(({ body }) => body.id).sort());
  });

  test("the queue page shows every queue and its jobs, and metrics have every model's depth", async () => {
    const queues = await stack.get("/admin/queues/api/queues", { as: "admin" });
    expect(queues.status).toBe(200);
    const names = queues.body.queues.map(({ name }: { name: string }) => name);
    for (const model of models) expect(names).toEqual(expect.arrayContaining([model]));
    for (const model of models) {
      const one = await stack.get(`/admin/queues/api/queues?activeQueue=${model}&status=completed&page=1`, {
        as: "admin",
      });
      const jobs = one.body.queues.find(({ name }: { name: string }) => name === model).jobs;
      expect(jobs.length, model).toBeGreaterThan(0);
    }
    const metrics = await stack.get("/metrics", { as: null });
    for (const model of models) expect(metrics.body).toContain(`ml_queue_depth{model="${model}",state="waiting"}`);
    expect((await stack.get("/ready", { as: null })).status).toBe(200);
  });

  test("after a kill and restart of one node nothing accepted is lost, and the same worker finishes it", async () => {
    const slowPlace = await placeOf("slow");
    const running = await stack.submit("slow", { x: [[2500]] });
    const accepted = await Promise.all(models.map((model) => stack.submit(model, inputs[model])));
    const victim = cluster.nodes[slowPlace] as OwnCluster["nodes"][number];
    await victim.kill();
    const { answer, longestHealthMs, tookMs } = await timedBesideHealth(
      stack,
      stack.post("/v1/models/slow/predictions", { input: inputs.slow, cache: false }),
    );
    expect([answer.status, answer.body.code]).toEqual([503, "redis_unavailable"]);
    expect(tookMs).toBeLessThan(redisCommandMs + 1000 + 4 * longestHealthMs);
    // Until the other nodes have noticed and the run has ended.
    await cluster.untilMissed(slowPlace);
    const [worker] = stack.workers as [TestStack["workers"][number]];
    await untilIdle(worker);
    await victim.resume();
    await cluster.untilWhole();
    for (const { id } of [running, ...accepted]) {
      await eventually(async () => {
        const { body } = await stack.get(`/v1/predictions/${id}`);
        expect(body.status).toBe("succeeded");
      }, 40_000);
    }
    for (const { url } of stack.apis) {
      for (const model of models) {
        await eventually(async () => {
          const answer = await stack.predict(model, inputs[model], {}, { url });
          expect([answer.status, answer.body.status]).toEqual([200, "succeeded"]);
        });
      }
      const waited = await stack.predict("slow", { x: [[600]] }, {}, { url });
      expect(waited.body.status).toBe("succeeded");
    }
  }, 90_000);
});
