import type { Logger } from "@millrace/shared/service/log.js";
import type { WorkerMetrics } from "../monitoring/metrics.js";
import { type BadModel, wholeFolder } from "./model-repository.js";

const longestDeathRetryMs = 600_000;
/** Refusals that are told, of any number. */
const mostTold = 200;
const longestReason = 8192;
/** Log lines of one scan. */
const mostLines = 20;

/**
 * Two reasons may pass while a version's files stay the same: a `conflict` with another worker's files or with Redis,
 * and a `death` of the process that loaded it.
 */
export type Passing = "conflict" | "death";

interface Refusal extends BadModel {
  stamp: string | null;
  /** Time of the next try with the same files, in ms of `performance.now()`. */
  retryAt: number;
  /** Deaths of processes that loaded these files. */
  deaths: number;
}

/** A model, and a version where one is known. */
export type NamedVersion = { model: string; version: string | null };

/** A version's name as a key: `model/version`. */
export const nameOf = ({ model, version }: NamedVersion): string => `${model}/${version ?? ""}`;

interface RefusalsOptions {
  /** Whether a version is served. */
  isHeld(name: string): boolean;
  metrics: WorkerMetrics;
  log: Logger;
  /** First delay of another try, in ms. */
  versionRetryMs: number;
}

/** Versions that this worker refuses to serve, each with the reason and the time of the next try. */
export class Refusals {
  readonly #options: RefusalsOptions;
  readonly #refused = new Map<string, Refusal>();
  /** Of the current scan. */
  #lines = 0;

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** The refusals that are told: all of them, or the first with one that says so. */
  all(): BadModel[] {
    const all = [...this.#refused.values()];
    if (all.length <= mostTold) return all;
    const reason = `it has ${all.length} models or versions that are refused, of which ${mostTold} are told`;
    return [{ model: wholeFolder, version: null, reason }, ...all.slice(0, mostTold)];
  }

  delete(name: string): void {
    this.#refused.delete(name);
  }

  /** Whether these files are refused and the next try is not due. */
  holdsBack(name: string, stamp: string): boolean {
    const refusal = this.#refused.get(name);
    return refusal?.stamp === stamp && refusal.retryAt > performance.now();
  }

  /**
   * Refuses files of a version; `stamp` is null for files that cannot be read. A `passing` refusal is tried again
   * later, ever more rarely after deaths.
   */
  refuse(
    bad: Pick<BadModel, "model" | "version">,
    reason: string,
    stamp: string | null,
    passing: Passing | null = null,
  ): void {
    const { log, metrics, versionRetryMs } = this.#options;
    const { model, version } = bad;
    const name = nameOf(bad);
    const told = cut(reason);
    const before = this.#refused.get(name);
    const deaths = passing === "death" ? 1 + (before?.stamp === stamp ? before.deaths : 0) : 0;
    const deathRetryMs = Math.min(longestDeathRetryMs, versionRetryMs * 2 ** (deaths - 1));
    const retryMs = { conflict: versionRetryMs, death: deathRetryMs };
    const retryAt = passing === null ? Number.POSITIVE_INFINITY : performance.now() + retryMs[passing];
    this.#refused.set(name, { model, version, reason: told, stamp, retryAt, deaths });
    if (before?.reason !== told && ++this.#lines <= mostLines) {
      log.error("model cannot be served", { model, version, reason: told });
    }
    if (!this.#options.isHeld(name) && this.#refused.size <= mostTold)
      metrics.modelLoaded.set({ model, version: version ?? "" }, 0);
  }

  /** Logs how many refusals have no line of their own since the last call. */
  endLines(): void {
    const more = this.#lines - mostLines;
    if (more > 0) this.#options.log.error("more models cannot be served: see /ready", { count: more });
    this.#lines = 0;
  }

  /** Refuses bad folders while they are bad; drops refusals of versions that are gone or unloaded. */
  update(
    bad: readonly BadModel[],
    isBad: ReadonlySet<string>,
    wanted: ReadonlyMap<string, unknown>,
    unloaded: ReadonlySet<string>,
  ): void {
    this.endLines();
    for (const refused of bad) {
      if (!unloaded.has(nameOf(refused))) this.refuse(refused, refused.reason, null);
    }
    for (const [name, { model, stamp, version }] of this.#refused) {
      const holds = stamp === null ? isBad.has(name) : wanted.has(name);
      if (holds && !unloaded.has(name)) continue;
      this.#refused.delete(name);
      if (!this.#options.isHeld(name)) this.#options.metrics.modelLoaded.remove({ model, version: version ?? "" });
    }
  }
}

/** A manifest's faults may be as long as the manifest. */
const cut = (reason: string): string =>
  reason.length <= longestReason
    ? reason
    : `${reason.slice(0, longestReason)}… (${reason.length - longestReason} characters more)`;
