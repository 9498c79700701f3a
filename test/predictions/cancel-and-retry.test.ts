import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { scrape } from "../support/http/scrape.js";
import { volume } from "../support/run/volume.js";
import { type CallOptions, type Owner, TestStack } from "../support/stack/stack.js";

const ms = (...rows: number[]) => ({ x: rows.map((row) => [row]) });

/** A run begins once so many rows are there; all of them take as long as the longest, which does not matter here. */
const joining = (rows: number) => ({
  kind: "tensor",
  batching: { join: "always", max_batch_rows: rows, max_delay_ms: 5000 },
});

describe("cancel and retry", () => {
  let stack: TestStack;
  const act = (verb: "cancel" | "retry", id: string, options: CallOptions = {}) =>
    stack.call("POST", `/v1/predictions/${id}/${verb}`, options);
  const cancel = async (id: string) => {
    const answer = await act("cancel", id);
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    expect(answer.body).toMatchObject({ id, status: "canceled", output: null });
    expect(answer.body.finished_at).not.toBeNull();
    return answer.body;
  };
  const read = async (id: string) => (await stack.get(`/v1/predictions/${id}`)).body;
  const running = (id: string) => eventually(async () => expect((await read(id)).status).toBe("running"));

  beforeAll(async () => {
    const env = { SHUTDOWN_GRACE_SECONDS: "5" };
    const manifests = { slow: { kind: "tensor", batching: { join: "always" } } };
    stack = await TestStack.start({ models: ["slow", "throws-on-row"], manifests, env, workers: 0 });
    const threes = join(stack.modelsDir, "slow-in-threes");
    await cp(join(stack.modelsDir, "slow"), threes, { recursive: true });
    await writeFile(join(threes, "model.json"), JSON.stringify(joining(3)));
    await stack.startWorker();
  });
  afterAll(() => stack.close());

  test("cancel ends a running prediction at once, and its slot serves others at once", async () => {
    const { id } = await stack.submit("slow", ms(60_000));
    await running(id);
    const answered = await cancel(id);
    expect(answered.started_at).not.toBeNull();
    // This waits at most 30 s, less than the canceled run would take.
    expect((await stack.predict("slow", ms(1))).body.status).toBe("succeeded");
    expect(await read(id)).toEqual(answered);
  });

  test("canceled queued and scheduled predictions never run", async () => {
    const { id: holder } = await stack.submit("slow", ms(1000));
    await running(holder);
    const queued = await stack.submit("slow", ms(2));
    const scheduled = await stack.submit("slow", ms(3), { delay_ms: 300 });
    expect(scheduled.status).toBe("scheduled");
    const answered = [await cancel(queued.id), await cancel(scheduled.id)];
    for (const each of answered) expect(each).toMatchObject({ started_at: null, attempts: 0 });
    await stack.final(holder);
    // A new submission runs after everything that waited.
    await stack.predict("slow", ms(1));
    expect([await read(queued.id), await read(scheduled.id)]).toEqual(answered);
    expect(stack.logged("prediction finished").map((line) => line.prediction_id)).not.toContain(queued.id);
  });

  test("cancel of a prediction in a joined run leaves the others running", async () => {
    const together = await Promise.all([3000, 20, 30].map((x) => stack.submit("slow-in-threes", ms(x))));
    const [one, ...others] = together.map(({ id }) => id as string);
    await running(one as string);
    const answered = await cancel(one as string);
    for (const other of others) {
      expect(await stack.final(other)).toMatchObject({ status: "succeeded", attempts: 1, timings: { batch_rows: 3 } });
    }
    expect(await read(one as string)).toEqual(answered);
  });

  test("a final prediction cannot be canceled", async () => {
    const ends = [
      (await stack.predict("slow", ms(1))).body,
      (await stack.predict("throws-on-row", ms(99))).body,
      await cancel((await stack.submit("slow", ms(1), { delay_ms: 60_000 })).id),
    ];
    expect(ends.map(({ status }) => status)).toEqual(["succeeded", "failed", "canceled"]);
    for (const end of ends) {
      const refused = await act("cancel", end.id);
      expect([refused.status, refused.body.code]).toEqual([409, "state_conflict"]);
      expect(await read(end.id)).toEqual(end);
    }
  });

  test("a cancel that races with the end leaves the state that it answered, hundreds of times", async () => {
    const times = volume(200, 1000);
    const answered: { id: string; canceled: boolean }[] = [];
    // All callers together adjust the pause before the cancel or, if even no pause is too late, the length of the run,
    // so that about half of the cancels come in time.
    let leadMs = 8;
    const caller = async () => {
      for (let i = 0; i < times / 10; i++) {
        const { id } = await stack.submit("slow", ms(2 + (i % 4) + Math.max(0, -leadMs)));
        await delay(Math.max(0, leadMs));
        const { status } = await act("cancel", id);
        expect([200, 409]).toContain(status);
        answered.push({ id, canceled: status === 200 });
        leadMs += status === 200 ? 2 : -2;
      }
    };
    const states = async () => Promise.all(answered.map(async ({ id }) => (await read(id)).status as string));
    await Promise.all(Array.from({ length: 10 }, caller));
    const wanted = answered.map(({ canceled }) => (canceled ? "canceled" : "succeeded"));
    expect(await states()).toEqual(wanted);
    await stack.predict("slow", ms(1));
    expect(await states()).toEqual(wanted);
    expect(
      Math.min(...["canceled", "succeeded"].map((end) => wanted.filter((is) => is === end).length)),
    ).toBeGreaterThan(times / 20);
  }, 120_000);

  test("a prediction canceled while no worker is alive is not run by the next worker", async () => {
    await stack.workers.at(-1)?.stop();
    const { id } = await stack.submit("slow", ms(5));
    const answered = await cancel(id);
    const worker = await stack.startWorker();
    expect((await stack.predict("slow", ms(1))).body.status).toBe("succeeded");
    expect(await read(id)).toEqual(answered);
    expect(await scrape(`http://127.0.0.1:${worker.port}`, "ml_prediction_total", { model: "slow" })).toBe(1);
  });

  test("a prediction that could not start in time expires, although a client waits for it", async () => {
    // Otherwise both might be joined into one run.
    await running((await stack.submit("slow", ms(1200))).id);
    const { id } = await stack.submit("slow", ms(1), { expires_in_ms: 200 });
    expect(await stack.final(id)).toMatchObject({ status: "expired", started_at: null, error: { code: "expired" } });
  });

  test("a retry is a new prediction with its own result", async () => {
    await running((await stack.submit("slow", ms(1500))).id);
    const expired = await stack.submit("slow", ms(2), { expires_in_ms: 100, metadata: { was: "expired" } });
    await eventually(async () => expect((await read(expired.id)).status).toBe("expired"));
    const canceled = await cancel((await stack.submit("slow", ms(3), { metadata: { was: "canceled" } })).id);
    const failed = (await stack.predict("throws-on-row", ms(99), { metadata: { was: "failed" } })).body;
    for (const [of, end] of [
      [expired, { status: "succeeded", output: { y: ms(2).x } }],
      [canceled, { status: "succeeded", output: { y: ms(3).x } }],
      [failed, { status: "failed" }],
    ]) {
      const before = await read(of.id);
      const retry = await act("retry", of.id);
      expect(retry.status).toBe(202);
      expect(retry.headers.get("location")).toBe(`/v1/predictions/${retry.body.id}`);
      expect(retry.body).toMatchObject({ status: "queued", retry_of: of.id, version: of.version, output: null });
      expect(retry.body.id).not.toBe(of.id);
      expect(await stack.final(retry.body.id)).toMatchObject({ ...end, retry_of: of.id, metadata: of.metadata });
      expect(await read(of.id)).toEqual(before);
    }
  });

  test("a succeeded or unfinished prediction cannot be retried", async () => {
    const succeeded = (await stack.predict("slow", ms(1))).body;
    const scheduled = await stack.submit("slow", ms(1), { delay_ms: 60_000 });
    const active = await stack.submit("slow", ms(400));
    await running(active.id);
    for (const { id } of [succeeded, scheduled, active]) {
      const refused = await act("retry", id);
      expect([refused.status, refused.body.code]).toEqual([409, "state_conflict"]);
    }
    await cancel(scheduled.id);
  });

  test("another owner's prediction is unknown, and a read-only key cancels and retries nothing", async () => {
    const pending = await stack.submit("slow", ms(1), { delay_ms: 60_000 });
    const unknown = `${pending.id.slice(0, -1)}${pending.id.endsWith("0") ? "1" : "0"}`;
    for (const verb of ["cancel", "retry"] as const) {
      const answers = await Promise.all(
        [pending.id, unknown].map((id) => act(verb, id, { as: "bob" as Owner, headers: { "x-request-id": "same" } })),
      );
      expect(answers.map(({ status }) => status)).toEqual([404, 404]);
      expect(answers[0]?.body).toEqual(answers[1]?.body);
      expect((await act(verb, pending.id, { as: "reader" })).status).toBe(403);
      expect((await act(verb, pending.id, { as: null })).status).toBe(401);
    }
    expect((await read(pending.id)).status).toBe("scheduled");
    await cancel(pending.id);
  });
});

test("a prediction canceled in a joined run stays gone, even if its result expires before the run ends", async () => {
  const env = { RESULT_TTL_SECONDS: "1" };
  const stack = await TestStack.start({ models: ["slow"], manifests: { slow: joining(2) }, env });
  const read = async (id: string) => (await stack.get(`/v1/predictions/${id}`)).body;
  try {
    const [one, other] = await Promise.all([4000, 3900].map((x) => stack.submit("slow", ms(x))));
    await eventually(async () => expect((await read(one.id)).status).toBe("running"));
    expect((await stack.call("POST", `/v1/predictions/${one.id}/cancel`)).status).toBe(200);
    await eventually(async () => expect((await read(one.id)).status).toBe(404));
    expect(await stack.final(other.id)).toMatchObject({ status: "succeeded", timings: { batch_rows: 2 } });
    expect((await read(one.id)).status).toBe(404);
  } finally {
    await stack.close();
  }
});
