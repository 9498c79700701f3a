import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { openTraceCollector } from "../support/http/trace-collector.js";
import { localWebhooks, openWebhookSink, type WebhookSink } from "../support/http/webhook-sink.js";
import { root } from "../support/run/tools.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const models = [tree, "throws-on-row"];
const traceId = "0af7651916cd43dd8448eb211c80319c";
const callerSpan = "b7ad6b7169203331";

describe("traces", () => {
  let collector: Awaited<ReturnType<typeof openTraceCollector>>;
  let sink: WebhookSink;
  let stack: TestStack;
  const byName = (name: string) => collector.spans.filter((span) => span.name === name);

  beforeAll(async () => {
    collector = await openTraceCollector();
    sink = await openWebhookSink();
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_BSP_SCHEDULE_DELAY: "50", ...localWebhooks };
    stack = await TestStack.start({ models, env });
  });
  afterAll(async () => {
    await stack.close();
    await sink.close();
    await collector.close();
  });

  test("lead from the caller's span through request, queue, slot and result to the webhook", async () => {
    const headers = { traceparent: `00-${traceId}-${callerSpan}-01` };
    const webhook = { url: sink.url("/traced") };
    const { body } = await stack.predict(tree, flow(1), { webhook }, { headers });
    expect(body.status).toBe("succeeded");
    const names = [
      "POST /v1/models/:model/predictions",
      "queue",
      "slot",
      "inference",
      "write result",
      "webhook prediction.completed",
    ];
    const spans = await eventually(() => {
      const found = names.map((name) => collector.spans.find((span) => span.name === name && span.traceId === traceId));
      for (const [i, span] of found.entries()) expect(span, names[i]).toBeDefined();
      return found.map((span) => span as NonNullable<typeof span>);
    });
    const [request, queue, slot, inference, write, called] = spans;
    expect(request).toMatchObject({ service: "millrace-api", parentSpanId: callerSpan });
    for (const span of [queue, slot, write, called]) {
      expect(span).toMatchObject({ service: "millrace-worker", parentSpanId: request?.spanId });
    }
    expect(inference?.parentSpanId).toBe(slot?.spanId);
    const [from, to] = ["startTimeUnixNano", "endTimeUnixNano"] as const;
    for (const span of spans) expect(BigInt(span[to])).toBeGreaterThanOrEqual(BigInt(span[from]));
    expect(queue?.[to]).toBe(slot?.[from]);
    expect(BigInt(called?.[from] as string)).toBeGreaterThanOrEqual(BigInt(write?.[from] as string));
  });

  test("lead from the upload of a batch to its webhook", async () => {
    const batchTrace = "2af7651916cd43dd8448eb211c80319c";
    const { status } = await stack.call("POST", `/v1/models/${tree}/batches`, {
      json: { inputs: [flow(1), flow(2)], webhook: { url: sink.url("/traced-batch") } },
      headers: { traceparent: `00-${batchTrace}-${callerSpan}-01` },
    });
    expect(status).toBe(202);
    const [request, called] = await eventually(() =>
      ["POST /v1/models/:model/batches", "webhook batch.completed"].map((name) => {
        const found = collector.spans.find((span) => span.name === name && span.traceId === batchTrace);
        expect(found, name).toBeDefined();
        return found;
      }),
    );
    expect(request).toMatchObject({ service: "millrace-api", parentSpanId: callerSpan });
    expect(called).toMatchObject({ service: "millrace-worker", parentSpanId: request?.spanId });
  });

  test("begin with the request if the caller has none, and mark failures", async () => {
    await stack.predict("throws-on-row", { x: [[1_000_000]] });
    await eventually(() => {
      const failed = byName("slot").find(({ status }) => status.code === 2);
      expect(failed?.traceId).not.toBe(traceId);
      const request = collector.spans.find(({ spanId }) => spanId === failed?.parentSpanId);
      expect(request).toMatchObject({ traceId: failed?.traceId, service: "millrace-api" });
    });
  });

  test("leave out requests not sampled by the caller", async () => {
    const other = "1af7651916cd43dd8448eb211c80319c";
    const headers = { traceparent: `00-${other}-${callerSpan}-00` };
    await stack.predict(tree, flow(2), {}, { headers });
    await stack.predict(tree, flow(3), {}, { headers: { traceparent: `00-${"2".repeat(32)}-${callerSpan}-01` } });
    await eventually(() => expect(collector.spans.some((span) => span.traceId === "2".repeat(32))).toBe(true));
    expect(collector.spans.filter((span) => span.traceId === other)).toEqual([]);
  });
});

describe("traces without a collector", () => {
  test("an unreachable collector delays no prediction and no stop of a service", async () => {
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9",
      OTEL_EXPORTER_OTLP_TIMEOUT: "500",
      OTEL_BSP_SCHEDULE_DELAY: "50",
    };
    const stack = await TestStack.start({ models: [tree], env });
    const { body } = await stack.predict(tree, flow(1));
    expect(body.status).toBe("succeeded");
    await eventually(() => expect(stack.logged("traces are not handed on").length).toBeGreaterThan(0));
    await stack.close();
  });

  test("if traces are off, no tracing code is loaded and no key is written", async () => {
    const loading = ["api", "workers", "shared"].flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
        .filter((name) => name.endsWith(".ts") && !/dist|node_modules|tracing\.ts$/.test(name))
        .filter((name) =>
          /^import (?!type)[^;]*(@opentelemetry|\/tracing\.js)/m.test(readFileSync(join(root, folder, name), "utf8")),
        ),
    );
    expect(loading).toEqual([]);
    const stack = await TestStack.start({ models: [tree] });
    const traceparent = `00-${traceId}-${callerSpan}-01`;
    await stack.predict(tree, flow(1), {}, { headers: { traceparent } });
    const keys = await stack.redis.call("KEYS", `${stack.prefix}:*/trace:*`);
    expect(keys).toEqual([]);
    await stack.close();
  });
});
