import { setTimeout as delay } from "node:timers/promises";
import { flowBody, forest } from "../harness/bodies.js";
import type { OnClose } from "../harness/releasers.js";
import { startLoad } from "../harness/start-load.js";
import { benchKeys, type Millrace } from "../harness/start-millrace.js";
import type { Receiver } from "../harness/start-receiver.js";
import { changing } from "../load/load-spec.js";

/** One in ten predictions has a webhook; all are waited for. */
const webhooksPerTen = 1;
const everythingElseEveryMs = 2000;
const batchRows = 500;

/** Everyday traffic at a steady pace. */
export interface EverydayTraffic {
  /** Resolves to the number of predictions answered with their result. */
  stop(): Promise<number>;
}

/**
 * Sends single predictions at that pace, each waited for, some with a webhook. Every two seconds, sends one of each
 * other kind that leaves something behind: a batch that is read back, an event stream, an idempotency key, a cached and
 * a joined answer, and a delayed, a canceled, an expired and an invalid prediction.
 */
export async function startTraffic(
  stack: Millrace,
  receiver: Receiver,
  perSecond: number,
  onClose: OnClose,
): Promise<EverydayTraffic> {
  const { path, port } = stack;
  const headers = { ...stack.headers, prefer: "wait=30" };
  const plain = await flowBody();
  const webhook = `,"webhook":{"url":"${receiver.url}","events":["prediction.started","prediction.completed"]}}`;
  const paces = [
    { body: plain, share: 10 - webhooksPerTen },
    { body: plain.replace(/\}$/, webhook), share: webhooksPerTen },
  ].map(({ body, share }) =>
    startLoad(onClose).pace({ port, path, headers, body, perSecond: (perSecond * share) / 10 }),
  );
  let stopped = false;
  const others = (async () => {
    for (let turn = 0; !stopped; turn++) {
      const begun = performance.now();
      await everythingElse(stack, plain, turn);
      await delay(Math.max(0, everythingElseEveryMs - (performance.now() - begun)));
    }
  })();
  // Its failure is reported by `stop`.
  others.catch(() => undefined);
  return {
    async stop() {
      stopped = true;
      await others;
      const reports = await Promise.all(paces.map((pace) => pace.stop()));
      return reports.reduce((sum, { latencyMs }) => sum + latencyMs.length, 0);
    },
  };
}

async function everythingElse(stack: Millrace, body: string, turn: number): Promise<void> {
  const input = (n: number) => JSON.parse(body.replace(changing, String(30_000_000 + turn * 1000 + n))).input;
  const call = async (method: string, path: string, json?: unknown, headers: Record<string, string> = {}) => {
    const response = await fetch(`http://127.0.0.1:${stack.port}${path}`, {
      method,
      headers: { ...stack.headers, "content-type": "application/json", ...headers },
      ...(json !== undefined && { body: JSON.stringify(json) }),
    });
    const text = await response.text();
    if (response.status >= 500) throw new Error(`${method} ${path} was answered ${response.status}: ${text}`);
    return { status: response.status, body: text };
  };
  const submit = async (json: object, headers: Record<string, string> = {}): Promise<{ id: string }> =>
    JSON.parse((await call("POST", stack.path, json, headers)).body);
  const waited = { prefer: "wait=30" };
  await submit({ input: input(0) }, { ...waited, "idempotency-key": `soak-${turn}` });
  await submit({ input: input(0) }, waited);
  const twin = { input: input(1), delay_ms: 200 };
  const [first] = await Promise.all([submit(twin), submit(twin)]);
  await call("GET", `/v1/predictions/${first.id}/events`);
  const canceled = await submit({ input: input(2), delay_ms: 60_000 });
  await call("POST", `/v1/predictions/${canceled.id}/cancel`);
  await call("POST", `/v1/predictions/${canceled.id}/retry`);
  await submit({ input: input(3), delay_ms: 900, expires_in_ms: 1000, cache: false });
  await submit({ input: ["none"] });
  await call("GET", "/v1/predictions?limit=20");
  const inputs = Array.from({ length: batchRows }, (_, n) => input(100 + (n % 50)));
  const batches = stack.path.replace("predictions", "batches");
  const { id } = JSON.parse((await call("POST", batches, { inputs })).body);
  await call("GET", `/v1/batches/${id}?wait=30`);
  await call("GET", `/v1/batches/${id}/results`, undefined, { accept: "application/x-ndjson" });
  await call("GET", `/v1/models/${forest}`);
  await call("GET", "/metrics");
}

/** Prefixes of the keys of the model's queues. */
export const queues: readonly string[] = (({ batchQueue, queue, webhookQueue }) => [queue, batchQueue, webhookQueue])(
  benchKeys(forest),
);

/** Number of waiting, running and delayed jobs of the model, in all queues. */
export async function openJobs({ redis }: Millrace): Promise<number> {
  let open = 0;
  for (const name of queues) {
    for (const list of ["wait", "active"]) open += await redis.client.llen(`${name}${list}`);
    for (const set of ["prioritized", "delayed"]) open += await redis.client.zcard(`${name}${set}`);
  }
  return open;
}
