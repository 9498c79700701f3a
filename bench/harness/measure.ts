import type { Latency } from "../load/statistics.js";
import { type Deployment, untilDrained, untilQuiet } from "./deployment.js";
import { type Usage, usageOf } from "./process-usage.js";
import type { Load } from "./start-load.js";

export interface LoadShape {
  body: string;
  connections: number;
  requests: number;
  /** Whether callers wait for the end of their submissions. */
  waiting: boolean;
  /** A further condition for the end of the round. */
  until?: Promise<unknown>;
}

/** One round of load on one deployment. */
export interface Round {
  /** Predictions a second, from the first byte sent until all are final and `until` has resolved. */
  finishedPerSecond: number;
  /** Answers a second. */
  answeredPerSecond: number;
  latency: Latency;
  /** CPU time of each process in the round, and its peak resident set so far; processes of one name together. */
  usage: Map<string, Usage>;
}

/** Sends one round of load and waits until all accepted predictions are final. */
export async function measure(load: Load, on: Deployment, shape: LoadShape): Promise<Round> {
  await untilQuiet(on);
  const before = usagesOf(load, on);
  const report = await load.run({
    port: on.port,
    path: on.path,
    headers: { ...on.headers, ...(shape.waiting && { prefer: "wait=30" }) },
    body: shape.body,
    connections: shape.connections,
    requests: shape.requests,
    expectStatus: shape.waiting ? 200 : 202,
  });
  await untilDrained(on);
  await shape.until;
  const finishedAt = Math.max(report.lastAnsweredAt, Date.now());
  const perSecond = (until: number) => (shape.requests * 1000) / (until - report.firstSentAt);
  const usage = usagesOf(load, on);
  for (const [name, used] of usage) used.cpuSeconds -= before.get(name)?.cpuSeconds ?? 0;
  return {
    finishedPerSecond: perSecond(finishedAt),
    answeredPerSecond: perSecond(report.lastAnsweredAt),
    latency: report.latency,
    usage,
  };
}

/** Usage so far of each process of a deployment and of the generator; processes of one name together. */
export function usagesOf(load: Load, on: Pick<Deployment, "processes">): Map<string, Usage> {
  const together = new Map<string, Usage>();
  for (const { name, pid } of [...on.processes(), { name: "generator", pid: load.pid }]) {
    const usage = usageOf(pid);
    const sum = together.get(name);
    if (sum === undefined) together.set(name, usage);
    else {
      sum.cpuSeconds += usage.cpuSeconds;
      sum.peakMiB += usage.peakMiB;
    }
  }
  return together;
}
