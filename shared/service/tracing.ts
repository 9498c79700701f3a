import {
  type Context,
  DiagLogLevel,
  diag,
  type HrTime,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BasicTracerProvider, BatchSpanProcessor } from "@opentelemetry/sdk-trace-base";
import type { Logger } from "./log.js";

const kinds = {
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
  internal: SpanKind.INTERNAL,
};
const flushMs = 3000;

export interface SpanOptions {
  kind?: keyof typeof kinds;
  /** W3C traceparent of the span that this one is part of; a new trace where it is missing or cannot be read. */
  parent?: string | undefined;
  /** Milliseconds since the epoch; now where missing. */
  startedAt?: number;
  attributes?: Record<string, string | number>;
}

/** A span that has begun. */
export interface OpenSpan {
  /** W3C traceparent, for what is part of it. */
  readonly traceparent: string;
  name(text: string): void;
  /** Ends it, now or at a time in ms since the epoch; `fault` marks it as failed. */
  end(options?: { at?: number; fault?: string | null; attributes?: Record<string, string | number> }): void;
}

/** Hands spans to a collector. Never throws for a collector that is away: spans are lost then, and the log says so. */
export interface Tracing {
  start(name: string, options?: SpanOptions): OpenSpan;
  /** A span that is over already. */
  note(name: string, endedAt: number, options: SpanOptions & { fault?: string | null }): OpenSpan;
  /** Hands on what there is, for 3 s at the longest. May be called twice. */
  close(): Promise<void>;
}

/**
 * Starts tracing to a collector (OTLP over HTTP; the exporter and the sampler read their other `OTEL_` variables).
 * `now`: the time of starts and ends, in ms since the epoch, with fractions. This file is loaded only where tracing is
 * on, so that nothing of it costs anything where it is off.
 */
export function startTracing(service: string, endpoint: string, now: () => number, log: Logger): Tracing {
  const complain = (message: string) => {
    log.warn("traces are not handed on", { error: message });
  };
  const quiet = () => undefined;
  diag.setLogger(
    { error: complain, warn: complain, info: quiet, debug: quiet, verbose: quiet },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  const exporter = new OTLPTraceExporter({ url: `${endpoint.replace(/\/+$/, "")}/v1/traces` });
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ "service.name": service, "service.namespace": "millrace" }),
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  const tracer = provider.getTracer("millrace");

  const start: Tracing["start"] = (name, { attributes, kind = "internal", parent, startedAt } = {}) => {
    const options = {
      kind: kinds[kind],
      startTime: hrTime(startedAt ?? now()),
      ...(attributes !== undefined && { attributes }),
    };
    const span = tracer.startSpan(name, options, contextOf(parent));
    const { spanId, traceFlags, traceId } = span.spanContext();
    return {
      traceparent: `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`,
      name: (text) => void span.updateName(text),
      end({ at, attributes: more, fault } = {}) {
        if (more !== undefined) span.setAttributes(more);
        if (fault != null) span.setStatus({ code: SpanStatusCode.ERROR, message: fault });
        span.end(hrTime(at ?? now()));
      },
    };
  };
  let closing: Promise<void> | null = null;
  return {
    start,
    note(name, endedAt, { fault = null, ...options }) {
      const span = start(name, options);
      span.end({ at: endedAt, fault });
      return span;
    },
    close() {
      const late = new Promise<void>((resolve) => setTimeout(resolve, flushMs).unref());
      closing ??= Promise.race([provider.shutdown().catch((error: Error) => complain(error.message)), late]);
      return closing;
    },
  };
}

/** In the form that is always taken as a time since the epoch; a number before the start of the process is not. */
const hrTime = (ms: number): HrTime => [Math.floor(ms / 1000), Math.round((ms % 1000) * 1e6)];

function contextOf(traceparent: string | undefined): Context {
  const [, traceId, spanId, flags] =
    /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent ?? "") ?? [];
  if (traceId === undefined || spanId === undefined) return ROOT_CONTEXT;
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags as string, 16),
    isRemote: true,
  });
}
