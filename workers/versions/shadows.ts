import type { WorkerTiming } from "@millrace/shared/config/timing.js";
import { type ShadowOutcome, shadowField, shadowsKeptSeconds } from "@millrace/shared/models/shadow-counts.js";
import { decodeTraffic } from "@millrace/shared/models/traffic.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { modelKeys } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { FinishedPrediction, FinishedRun } from "../jobs/finish-prediction.js";
import type { EndedVersion } from "../jobs/taken-prediction.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { Dispatcher, type DispatcherHooks } from "../runs/dispatcher.js";
import type { LoadReply } from "../runs/load-request.js";
import { SlotPool } from "../runs/slot-pool.js";
import { compareOutputs } from "./compare-outputs.js";
import type { LoadedVersion } from "./load-versions.js";

const refreshEveryMs = 2000;
const mostWaiting = 256;
const mostWaitingBytes = 64 * 1024 * 1024;
const largestOutput = 1_000_000;

export interface ShadowOptions {
  redis: RedisClient;
  keyPrefix: string;
  slotEnvironment: Record<string, string | undefined>;
  timing: Pick<WorkerTiming, "shadowNice" | "slowLoadMs">;
  /** The versions that this worker serves. */
  held(): readonly LoadedVersion[];
  /** Called for a version whose outputs are not one per row. */
  onMisfit: DispatcherHooks["onMisfit"];
  metrics: WorkerMetrics;
  clock: Clock;
  log: Logger;
}

/**
 * Runs shadow versions on the inputs of finished predictions, and counts the comparisons. Its rules:
 * - A shadow run begins after the result is written and its waiters are notified.
 * - It runs in a process of its own at low priority, so that a hang or crash there takes no slot from callers.
 * - Callers never depend on it: when too many wait they are dropped and counted, and none outlives its worker.
 */
export class Shadows {
  readonly #options: ShadowOptions;
  #active: { pool: SlotPool; dispatcher: Dispatcher } | null = null;
  /** Shadow versions in the process, by model. */
  #loaded = new Map<string, LoadedVersion[]>();
  /** Shadow versions that are being loaded, and those that could not be. */
  #pending: readonly LoadedVersion[] = [];
  #counts = new Map<string, Map<string, number>>();
  #waiting = 0;
  #waitingBytes = 0;
  #lastId = 0;
  #closed = false;
  #refreshing: Promise<void> = Promise.resolve();
  readonly #timer: NodeJS.Timeout;

  constructor(options: ShadowOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      this.#refreshing = this.#refreshing
        .then(() => this.#refresh())
        .catch((error) => void options.log.warn("shadow versions not read", { error }));
    }, refreshEveryMs);
  }

  /** Runs the shadows of a finished prediction, in the background. */
  observe({ run, served }: FinishedPrediction): void {
    const shadows = this.#loaded.get(served.model);
    if (run === null || shadows === undefined) return;
    for (const shadow of shadows) if (shadow.version !== served.version) this.#start(served, shadow, run);
  }

  /** Ends the shadows' process with its runs. May be called twice. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#closed = true;
    await this.#active?.pool.close();
    await this.#refreshing;
    await this.#active?.pool.close();
  }

  #start(served: EndedVersion, shadow: LoadedVersion, run: FinishedRun): void {
    const count = (outcome: ShadowOutcome, difference?: number) => this.#count(served, shadow, outcome, difference);
    const { pack, rows, signature } = run;
    const tooMuch = this.#waiting >= mostWaiting || this.#waitingBytes + pack.length > mostWaitingBytes;
    if (this.#active === null || tooMuch || run.outputJson.length > largestOutput) {
      count("dropped");
      return;
    }
    if (!this.#takeSameInput(served, shadow)) {
      count("failed");
      return;
    }
    this.#waiting += 1;
    this.#waitingBytes += pack.length;
    const id = `shadow-${++this.#lastId}`;
    const { runQueue } = shadow;
    void this.#active.dispatcher
      .submit({ id, runQueue, pack, rows, signature, owner: "", priority: 0, alone: false, onBegin: () => undefined })
      .then((outcome) => {
        this.#waiting -= 1;
        this.#waitingBytes -= pack.length;
        if (outcome.kind === "done" && outcome.item.ok) {
          const { agrees, difference } = compareOutputs(run.outputJson, outcome.item.text);
          count(agrees ? "agree" : "differ", difference);
        } else count(outcome.kind === "released" || outcome.kind === "canceled" ? "dropped" : "failed");
      });
  }

  /** An input packed for one version fits another only where both take the same input. */
  #takeSameInput(served: EndedVersion, shadow: LoadedVersion): boolean {
    const { held } = this.#options;
    const primary = held().find(({ model, version }) => model === served.model && version === served.version);
    return primary !== undefined && inputOf(primary) === inputOf(shadow);
  }

  #count(served: EndedVersion, shadow: LoadedVersion, outcome: ShadowOutcome, difference?: number): void {
    const { metrics } = this.#options;
    const { model, version } = served;
    const labels = { model, version, shadow: shadow.version };
    metrics.shadowRuns.inc({ ...labels, outcome });
    if (difference !== undefined) metrics.shadowDifference.observe(labels, difference);
    const counts = this.#counts.get(model) ?? new Map<string, number>();
    this.#counts.set(model, counts);
    const add = (what: ShadowOutcome | "difference", amount: number) => {
      const field = shadowField(version, shadow.version, what);
      counts.set(field, (counts.get(field) ?? 0) + amount);
    };
    add(outcome, 1);
    if (difference !== undefined) add("difference", difference);
  }

  async #refresh(): Promise<void> {
    const { keyPrefix, redis } = this.#options;
    const held = this.#options.held();
    const wanted: LoadedVersion[] = [];
    for (const model of new Set(held.map((version) => version.model))) {
      const traffic = decodeTraffic(await redis.hget(modelKeys(keyPrefix, model).traffic, "current"));
      wanted.push(...held.filter((loaded) => loaded.model === model && traffic.shadow.includes(loaded.version)));
    }
    await this.#load(wanted);
    await this.#flush();
  }

  async #load(wanted: readonly LoadedVersion[]): Promise<void> {
    const { log, slotEnvironment: environment, timing } = this.#options;
    const loaded = [...this.#loaded.values()].flat();
    const before = [...loaded, ...this.#pending];
    const gone = before.filter((version) => !wanted.includes(version));
    const added = wanted.filter((version) => !before.includes(version));
    if (this.#closed || (gone.length === 0 && added.length === 0)) return;
    this.#loaded = byModel(loaded.filter((version) => wanted.includes(version)));
    this.#pending = this.#pending.filter((version) => wanted.includes(version));
    this.#active?.dispatcher.releaseOthers(new Set(wanted.map(({ request }) => request.key)));
    for (const { request } of gone) this.#active?.pool.unload(request.key);
    if (wanted.length === 0) {
      const active = this.#active;
      this.#active = null;
      await active?.pool.close();
      return;
    }
    if (this.#active === null) {
      const pool: SlotPool = new SlotPool({
        ...{ slots: 1, environment, log, nice: timing.shadowNice, slowLoadMs: timing.slowLoadMs },
        onIdle: () => dispatcher.pump(),
        // Counted by the outcome of the run.
        onDeath: () => undefined,
      });
      const dispatcher: Dispatcher = new Dispatcher(pool, this.#options.clock, { onMisfit: this.#options.onMisfit });
      this.#active = { pool, dispatcher };
    }
    if (added.length === 0) return;
    this.#pending = [...this.#pending, ...added];
    // Each is run as soon as it is loaded; one that takes long holds up neither the others nor later changes.
    void this.#active.pool.load(
      added.map(({ request }) => request),
      { decided: (reply) => this.#decide(added, reply) },
    );
  }

  #decide(added: readonly LoadedVersion[], reply: LoadReply): void {
    const loaded = added.find(({ request }) => request.key === reply.key);
    if (loaded === undefined || this.#closed || !this.#pending.includes(loaded)) return;
    const { model, version } = loaded;
    if (reply.ok) {
      this.#pending = this.#pending.filter((other) => other !== loaded);
      this.#loaded = byModel([...[...this.#loaded.values()].flat(), loaded]);
    } else this.#options.log.error("shadow version cannot be loaded", { model, version, reason: reply.reason });
  }

  async #flush(): Promise<void> {
    const { keyPrefix, redis } = this.#options;
    const all = this.#counts;
    this.#counts = new Map();
    for (const [model, counts] of all) {
      const { shadows } = modelKeys(keyPrefix, model);
      const pipeline = redis.pipeline();
      for (const [field, amount] of counts) pipeline.hincrbyfloat(shadows, field, amount);
      await pipeline.expire(shadows, shadowsKeptSeconds).exec();
    }
  }
}

const inputs = new WeakMap<LoadedVersion, string>();

/** Everything that the packing of an input depends on, as text. */
function inputOf(loaded: LoadedVersion): string {
  const known = inputs.get(loaded);
  if (known !== undefined) return known;
  const { announcement } = loaded;
  const { manifest } = announcement;
  const input = "input" in manifest ? manifest.input : null;
  const text = JSON.stringify([manifest.kind, input, announcement.inputs.map(({ dtype, name }) => [name, dtype])]);
  inputs.set(loaded, text);
  return text;
}

function byModel(versions: readonly LoadedVersion[]): Map<string, LoadedVersion[]> {
  const map = new Map<string, LoadedVersion[]>();
  for (const version of versions) map.set(version.model, [...(map.get(version.model) ?? []), version]);
  return map;
}
