import { request as httpRequest } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { watchLoop } from "@millrace/api/admission/loop-watch.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { scrape } from "../support/http/scrape.js";
import { type Answer, keys, TestStack } from "../support/stack/stack.js";

describe("the watch of an event loop", () => {
  test("reports a stall at once, before any timer has run, and until the loop is on time for a while", async () => {
    const loop = watchLoop(1000);
    try {
      expect(loop.isDrowning()).toBe(false);
      const until = performance.now() + 1300;
      while (performance.now() < until);
      expect(loop.isDrowning()).toBe(true);
      await delay(150);
      expect(loop.isDrowning()).toBe(true);
      await eventually(() => expect(loop.isDrowning()).toBe(false));
    } finally {
      loop.close();
    }
  });
});

const model = "echo-int64";
const path = `/v1/models/${model}`;

describe("an API whose event loop stalled for over a second", () => {
  let stack: TestStack;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model], timing: { api: { overloadLagMs: 1000 } } });
  });
  afterAll(() => stack.close());

  /** Sends the head of a large upload and only a part of its body; resolves to the answer. */
  function halfAnUpload(to = `${path}/batches`): Promise<{ status: number; code: string; retryAfter: string }> {
    return new Promise((resolve, reject) => {
      const sending = httpRequest(`${stack.url}${to}`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${keys.alice}`,
          "content-type": "application/x-ndjson",
          "content-length": String(64 * 1024 * 1024),
        },
      });
      sending.once("response", (response) => {
        let text = "";
        response.on("data", (part: Buffer) => {
          text += part;
          if (text.length < Number(response.headers["content-length"])) return;
          const retryAfter = String(response.headers["retry-after"]);
          resolve({ status: response.statusCode as number, code: JSON.parse(text).code, retryAfter });
          sending.destroy();
        });
      });
      sending.on("error", reject);
      sending.write('{"x":[[1,2,3]]}\n'.repeat(1000));
    });
  }

  test("refuses new work without reading its body, does everything else, and soon accepts work again", async () => {
    const [api] = stack.apis as [TestStack["apis"][number]];
    const done = (await stack.predict(model, { x: [[1, 1, 1]] })).body.id;
    const later = (await stack.submit(model, { x: [[2, 2, 2]] }, { delay_ms: 3_600_000 })).id;
    const input = { input: { x: [[3, 3, 3]] } };
    api.child.kill("SIGSTOP");
    let refused: Promise<Answer>[];
    let goesOn: Promise<Answer>[];
    let uploads: ReturnType<typeof halfAnUpload>[];
    try {
      refused = [
        stack.post(`${path}/predictions`, input),
        stack.post(`${path}/batches`, { inputs: [input.input] }),
        stack.post(`/v2/models/${model}/infer`, {
          inputs: [{ name: "x", datatype: "INT64", shape: [1, 3], data: [1, 2, 3] }],
        }),
        stack.post("/predict", { features: [] }),
        stack.post(`/v1/predictions/${done}/retry`, {}),
        stack.post(`${path}/predictions/`, input),
        stack.post(`/v1/batches/${done}/retry/`, {}),
      ];
      uploads = [halfAnUpload(), halfAnUpload(`${path}/batches/`)];
      goesOn = [
        stack.get("/health", { as: null }),
        stack.get("/ready", { as: null }),
        stack.get(`/v1/predictions/${done}`),
        stack.get(path),
        stack.post(`/v1/predictions/${later}/cancel`, {}),
      ];
      await delay(1500);
    } finally {
      api.child.kill("SIGCONT");
    }
    for (const answer of await Promise.all(refused)) {
      assertProblem(answer, 503, "overloaded");
      expect(answer.headers.get("retry-after")).toBe("1");
    }
    expect((await refused[2])?.body.error).toContain("overloaded");
    for (const upload of await Promise.all(uploads)) {
      expect(upload).toEqual({ status: 503, code: "overloaded", retryAfter: "1" });
    }
    const answers = await Promise.all(goesOn);
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect(answers[1]?.body.turning_away).toEqual([expect.stringContaining("event loop")]);
    expect(answers[2]?.body.status).toBe("succeeded");
    expect(answers[4]?.body.status).toBe("canceled");
    expect(await scrape(stack.url, "ml_requests_shed_total", { reason: "overloaded" })).toBe(9);
    await eventually(async () => expect((await stack.predict(model, input.input)).status).toBe(200));
    expect((await stack.get("/ready", { as: null })).body.turning_away).toEqual([]);
  });
});
