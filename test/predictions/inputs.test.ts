import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem, pointersOf } from "../support/http/problem.js";
import { assertNotified } from "../support/stack/assert-notified.js";
import { flow, manifestOf } from "../support/stack/flows.js";
import { noticesOnly, TestStack } from "../support/stack/stack.js";

const model = "intrusion-decision-tree";
const features: string[] = manifestOf(model).input.features;
const pointer = (name: string) => `/input/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
const byName = (values: readonly unknown[]) => Object.fromEntries(features.map((name, i) => [name, values[i]]));

describe("inputs of a tabular model", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model] });
  });
  afterAll(() => stack.close());

  const refused = async (inputText: string) => {
    const headers = { "content-type": "application/json" };
    const text = `{"input":${inputText}}`;
    const answer = await stack.call("POST", `/v1/models/${model}/predictions`, { text, headers });
    return assertProblem(answer, 422, "invalid_input");
  };

  test("a row as an array or as an object, in any order of names, gives the same output", async () => {
    const array = await stack.predict(model, flow(7));
    const object = await stack.predict(model, byName(flow(7)));
    const reversed = await stack.predict(model, Object.fromEntries(Object.entries(byName(flow(7))).reverse()));
    expect(array.body.status).toBe("succeeded");
    expect(object.body.output).toEqual(array.body.output);
    expect(reversed.body.output).toEqual(array.body.output);
    const samples = manifestOf(model).samples as { input: unknown; expected: { label: string } }[];
    for (const sample of samples) {
      const { body } = await stack.predict(model, sample.input);
      expect(body.output.label).toBe(sample.expected.label);
    }
  });

  test("every invalid feature of an object is listed at once, with an escaped pointer", async () => {
    const input: Record<string, unknown> = byName(flow());
    input["Flow Bytes/s"] = null;
    input["Flow Packets/s"] = "12";
    input["Flow Duration"] = 1e39;
    input["Fwd Header Length"] = [1];
    input["Total Fwd Packets"] = true;
    delete input["Destination Port"];
    input["Flow~Bytes/s"] = 1;
    const text = JSON.stringify(input).replace(/("Flow IAT Mean":)[^,}]*/, "$11e400");
    const body = await refused(text);
    const wrong = ["Flow Bytes/s", "Flow Packets/s", "Flow Duration", "Fwd Header Length", "Total Fwd Packets"];
    const all = [...wrong, "Destination Port", "Flow~Bytes/s", "Flow IAT Mean"];
    expect(pointersOf(body)).toEqual(all.map(pointer).sort());
    expect(all.map(pointer)).toContain("/input/Flow~0Bytes~1s");
    for (const { detail, pointer: at } of body.errors) {
      expect(all.filter((name) => detail.includes(`"${name}"`)).map(pointer)).toContain(at);
    }
  });

  test("every invalid element of an array is listed at once, with the name of its feature", async () => {
    const values: unknown[] = flow();
    values[14] = null;
    values[3] = "3";
    values[77] = -1e39;
    const text = JSON.stringify(values).replace(/^\[[^,]*/, "[-1e400");
    const body = await refused(text);
    expect(pointersOf(body)).toEqual(["/input/0", "/input/14", "/input/3", "/input/77"]);
    for (const { detail, pointer: at } of body.errors) {
      expect(detail).toContain(`"${features[Number(at.slice("/input/".length))]}"`);
    }
  });

  test("the largest float32 is accepted, and the next double that would round to infinity is refused", async () => {
    const largest = flow();
    largest[5] = 3.4028234663852886e38;
    expect((await stack.predict(model, largest)).body.status).toBe("succeeded");
    largest[5] = 2 ** 128 - 2 ** 103;
    expect(pointersOf(await refused(JSON.stringify(largest)))).toEqual(["/input/5"]);
  });

  test.each([
    ["an array that is too short", JSON.stringify(flow().slice(1))],
    ["an array that is too long", JSON.stringify([...flow(), 1])],
    ["a number", "5"],
    ["a text", '"flow"'],
    ["null", "null"],
  ])("%s is refused as a row", async (_what, text) => {
    expect(pointersOf(await refused(text))).toEqual(["/input"]);
  });

  test("an object without any feature is refused with all 78", async () => {
    expect(pointersOf(await refused("{}"))).toEqual(features.map(pointer).sort());
  });
});

describe("order and time", () => {
  let stack: TestStack;
  const slow = { kind: "tensor", batching: { max_batch_rows: 1 } };
  const input = (ms: number) => ({ x: [[ms]] });

  beforeAll(async () => {
    stack = await TestStack.start({ models: ["slow", "echo-int64"], manifests: { slow }, timing: noticesOnly });
  });
  afterAll(() => stack.close());

  test("while the slot is busy, priority 0 goes before 1 and 1 before 1000, in any order of arrival", async () => {
    const busy = await stack.submit("slow", input(800));
    await eventually(async () => {
      expect((await stack.get(`/v1/predictions/${busy.id}`)).body.status).toBe("running");
    });
    const ids: string[] = [];
    for (const priority of [1000, 1, 0]) ids.push((await stack.submit("slow", input(20), { priority })).id);
    const [last, middle, first] = await Promise.all(ids.map((id) => stack.final(id)));
    const begun = [first, middle, last].map(({ started_at }) => Date.parse(started_at));
    expect(begun).toEqual([...begun].sort((a, b) => a - b));
    expect(new Set(begun).size).toBe(3);
  });

  test("a delayed prediction is scheduled, and runs no sooner", async () => {
    const scheduled = await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { delay_ms: 700 });
    expect(scheduled).toMatchObject({ status: "scheduled", queue_position: null, started_at: null });
    const { body } = await stack.get(`/v1/predictions/${scheduled.id}`);
    expect(body).toMatchObject({ status: "scheduled", queue_position: null });
    const final = await stack.final(scheduled.id);
    expect(final.status).toBe("succeeded");
    expect(Date.parse(final.started_at) - Date.parse(final.created_at)).toBeGreaterThanOrEqual(700);
  });

  test("queue_position counts the predictions ahead", async () => {
    await stopWorkers(stack);
    const submitted = [];
    for (let i = 0; i < 4; i++) submitted.push(await stack.submit("slow", input(1)));
    expect(submitted.map((prediction) => prediction.queue_position)).toEqual([1, 2, 3, 4]);
    const read = await Promise.all(submitted.map(({ id }) => stack.get(`/v1/predictions/${id}`)));
    expect(read.map(({ body }) => body.queue_position)).toEqual([1, 2, 3, 4]);
    await stack.startWorker();
    const finals = await Promise.all(submitted.map(({ id }) => stack.final(id)));
    expect(finals.map(({ status, queue_position }) => [status, queue_position])).toEqual(
      submitted.map(() => ["succeeded", null]),
    );
  });

  test("a prediction that expires while no worker is alive reads as expired, and never runs afterwards", async () => {
    await stopWorkers(stack);
    const read = await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { expires_in_ms: 300 });
    const unread = await stack.submit("echo-int64", { x: [[4, 5, 6]] }, { expires_in_ms: 300 });
    const lasting = await stack.submit("echo-int64", { x: [[7, 8, 9]] }, { expires_in_ms: 60_000 });
    const expired = await eventually(async () => {
      const { body } = await stack.get(`/v1/predictions/${read.id}`);
      expect(body.status).toBe("expired");
      return body;
    });
    expect(expired).toMatchObject({ output: null, started_at: null, attempts: 0, error: { code: "expired" } });
    expect(Date.parse(expired.finished_at) - Date.parse(expired.created_at)).toBeGreaterThanOrEqual(300);

    const worker = await stack.startWorker();
    expect((await stack.final(lasting.id)).output).toEqual({ y: [[7, 8, 9]] });
    expect(await stack.final(unread.id)).toMatchObject({ status: "expired", started_at: null, attempts: 0 });
    expect(await stack.final(read.id)).toEqual(expired);
    const metrics = await (await fetch(`http://127.0.0.1:${worker.port}/metrics`)).text();
    expect(metrics).toMatch(/^ml_prediction_total{model="echo-int64",version="1",status="succeeded"} 1$/m);
  });

  test("a wait answers when its prediction expires, not at the end of its time", async () => {
    await stopWorkers(stack);
    for (let i = 0; i < 2; i++) {
      const { id } = await stack.submit("echo-int64", { x: [[1, 2, i]] }, { expires_in_ms: 300 });
      const control = { model: "echo-int64", input: { x: [[1, 2, 3]] } };
      const { body } = await assertNotified(stack, control, () => stack.get(`/v1/predictions/${id}?wait=30`));
      expect(body.status).toBe("expired");
    }
  });

  test("a wait answers with the state at its end, not with an earlier one", async () => {
    const { id } = await stack.submit("echo-int64", { x: [[1, 2, 3]] }, { expires_in_ms: 300 });
    expect((await stack.get(`/v1/predictions/${id}?wait=1`)).body.status).toBe("expired");
  });

  test("a submission that expires within its Prefer: wait is answered as finished", async () => {
    const options = { headers: { prefer: "wait=1" } };
    const answer = await stack.predict("echo-int64", { x: [[1, 2, 3]] }, { expires_in_ms: 300 }, options);
    expect([answer.status, answer.body.status]).toEqual([200, "expired"]);
  });
});

async function stopWorkers(stack: TestStack): Promise<void> {
  for (const worker of stack.workers) if (worker.child.exitCode === null) expect(await worker.stop()).toBe(0);
}
