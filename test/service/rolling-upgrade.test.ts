import { announcementSchema } from "@millrace/shared/models/announcement.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { announcementSchema as oldAnnouncementSchema } from "../fixtures/releases/0.1.0/announcement.js";
import { predictionJobSchema as oldJobSchema } from "../fixtures/releases/0.1.0/job.js";
import { decodeResult as decodeOldResult } from "../fixtures/releases/0.1.0/prediction.js";
import { eventually } from "../support/eventually.js";
import { localWebhooks, openWebhookSink, type WebhookSink } from "../support/http/webhook-sink.js";
import { type RecordedRelease, recordedReleases, restore } from "../support/recorded-release.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const models = ["slow", "throws-on-row", "echo-int64", tree];

describe.each(recordedReleases().map((recorded): [string, RecordedRelease] => [recorded.release, recorded]))(
  "work that release %s left in Redis",
  (_release, recorded) => {
    let stack: TestStack;
    let sink: WebhookSink;
    const { left } = recorded;

    beforeAll(async () => {
      sink = await openWebhookSink();
      stack = await TestStack.start({ models, workers: 0, apis: 0, env: localWebhooks });
      await restore(stack.redis, recorded, stack.prefix, sink.url("/"));
      await stack.startApi();
    });
    afterAll(async () => {
      await stack.close();
      await sink.close();
    });

    test("is readable, listed and replayed before any worker of this release has started", async () => {
      const { body } = await stack.get("/v1/models");
      expect(body.data.map(({ name }: { name: string }) => name).sort()).toEqual([...models].sort());
      expect((await stack.get(`/v1/predictions/${recorded.finished.id}`)).body).toMatchObject(recorded.finished);
      expect((await stack.get(`/v1/predictions/${recorded.failed.id}`)).body).toMatchObject(recorded.failed);
      const listed = (await stack.get("/v1/predictions?limit=100")).body.data.map(({ id }: { id: string }) => id);
      expect(listed).toEqual(expect.arrayContaining([recorded.finished.id, ...Object.values(left)]));
      expect((await stack.get(`/v1/batches/${recorded.finishedBatch.id}`)).body).toMatchObject(recorded.finishedBatch);
      const { again } = recorded;
      const replayed = await stack.post(`/v1/models/${again.model}/predictions`, again.body, {
        headers: { "idempotency-key": again.key, prefer: "wait=10" },
      });
      expect(replayed.headers.get("idempotency-replayed")).toBe("true");
      expect(replayed.body.id).toBe(recorded.finished.id);
    });

    test("is finished by this release, from any state", async () => {
      await stack.startWorker();
      const endings = Object.entries(left).map(async ([name, id]) => [name, (await stack.final(id)).status]);
      expect(Object.fromEntries(await Promise.all(endings))).toEqual({
        running: "succeeded",
        taken: "succeeded",
        waiting: "succeeded",
        joined: "succeeded",
        urgent: "succeeded",
        delayed: "succeeded",
        expiring: "expired",
        retry: "failed",
        called: "succeeded",
      });
      const batch = await stack.get(`/v1/batches/${recorded.leftBatch}?wait=30`);
      expect(batch.body).toMatchObject({ status: "succeeded", counts: { total: 3, succeeded: 3 } });
      const { metadata, output } = await stack.final(left.waiting);
      expect({ metadata, output }).toEqual({ metadata: { note: "kept" }, output: { y: [[7, 8, 9]] } });
      expect((await stack.final(left.retry)).retry_of).toBe(recorded.failed.id);
    });

    test("is reported to the webhooks requested then", async () => {
      await eventually(() => {
        expect(sink.at("/told").map(({ type }) => type)).toContain("prediction.completed");
        expect(sink.at("/batch").map(({ type }) => type)).toContain("batch.completed");
        for (const path of ["/called", "/joined"]) {
          const types = sink.at(path).map(({ type }) => type);
          expect(types).toEqual(expect.arrayContaining(["prediction.started", "prediction.completed"]));
        }
      });
      expect(sink.at("/told")[0].data.id).toBe(recorded.told);
    });
  },
);

describe("work that this release leaves in Redis", () => {
  let stack: TestStack;
  beforeAll(async () => {
    stack = await TestStack.start({ models });
  });
  afterAll(() => stack.close());

  test("is readable by the previous release: announcements, jobs and results", async () => {
    const keys = modelKeys(stack.prefix, tree);
    const announced = Object.values(await stack.redis.hgetall(keys.versions));
    expect(announced.map((text) => oldAnnouncementSchema.parse(JSON.parse(text)).model)).toEqual([tree]);

    const { body: finished } = await stack.predict(tree, flow(1), { metadata: { a: 1 } });
    const result = decodeOldResult((await stack.redis.get(keys.result(finished.id))) as string);
    expect(result).toMatchObject({ owner: "alice", status: "succeeded" });
    expect(JSON.parse(result.json)).toMatchObject({ id: finished.id, output: finished.output });

    const webhooks = { expires_in_ms: 900_000, delay_ms: 600_000, metadata: { a: 1 }, priority: 3 };
    for (const rest of [{ delay_ms: 600_000 }, webhooks]) {
      const { id } = await stack.submit(tree, flow(2), rest);
      const data = JSON.parse((await stack.redis.hget(`${keys.queue}${id}`, "data")) as string);
      expect(oldJobSchema.parse(data)).toMatchObject({ v: 1, o: "alice", ver: "1", x: expect.any(String) });
      await stack.post(`/v1/predictions/${id}/cancel`, undefined);
    }
  });

  test("does not depend on unknown fields, which announcements of later releases may have", async () => {
    const [text] = Object.values(await stack.redis.hgetall(modelKeys(stack.prefix, tree).versions));
    const known = JSON.parse(text as string);
    const { manifest } = known;
    const newer = {
      ...known,
      signature: "…",
      manifest: {
        ...manifest,
        drift: { bins: [1] },
        batching: { ...manifest.batching, adaptive: true },
        input: { ...manifest.input, features: manifest.input.features.map((name: string) => ({ name, unit: "s" })) },
        output: { ...manifest.output, calibrated: true },
      },
    };
    const read = announcementSchema.parse(newer);
    expect(read.manifest).not.toHaveProperty("drift");
    expect(read.manifest).toMatchObject({ kind: "tabular", batching: manifest.batching, output: manifest.output });
    expect(announcementSchema.safeParse({ ...newer, manifest: { ...manifest, kind: "sound" } }).success).toBe(false);
    expect(announcementSchema.safeParse({ ...newer, manifest: { ...manifest, timeout_ms: "soon" } }).success).toBe(
      false,
    );
  });
});
