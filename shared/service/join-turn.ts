/** When the collected entries are run: `setImmediate` after the turn, `queueMicrotask` before anything that follows. */
export type Schedule = (run: () => void) => unknown;

/**
 * Collects the entries of one turn of the event loop and runs them together, at the moment that the first one asks for.
 */
export class JoinTurn<T> {
  readonly #run: (all: T[]) => void;
  readonly #schedule: Schedule;
  #all: T[] = [];
  readonly #flush = () => {
    const all = this.#all;
    this.#all = [];
    this.#run(all);
  };

  constructor(run: (all: T[]) => void, schedule: Schedule = setImmediate) {
    this.#run = run;
    this.#schedule = schedule;
  }

  add(one: T): void {
    if (this.#all.length === 0) this.#schedule(this.#flush);
    this.#all.push(one);
  }
}

export interface JoinOptions<Q> {
  schedule?: Schedule;
  /** Only calls of the same key are joined; all of them where it is missing. */
  keyOf?: (asked: Q) => string;
  /** The most calls of one step. */
  maxCalls?: number;
  /** A step ends with the call that makes it as large as this. */
  maxBytes?: number;
  bytesOf?: (asked: Q) => number;
}

interface PendingCall<Q, A> {
  asked: Q;
  resolve(answer: A): void;
  reject(fault: unknown): void;
}

/**
 * A function whose calls of one turn become one call of `step`, which answers them by position; in several steps where
 * they are too many. A step that rejects rejects its own calls only.
 */
export function joinCalls<Q, A>(
  step: (asked: [Q, ...Q[]]) => Promise<readonly A[]>,
  options: JoinOptions<Q> = {},
): (asked: Q) => Promise<A> {
  const run = async (calls: readonly PendingCall<Q, A>[]) => {
    try {
      const answers = await step(calls.map(({ asked }) => asked) as [Q, ...Q[]]);
      for (const [i, { resolve }] of calls.entries()) resolve(answers[i] as A);
    } catch (fault) {
      for (const { reject } of calls) reject(fault);
    }
  };
  const turn = new JoinTurn<PendingCall<Q, A>>((all) => {
    for (const calls of stepsOf(all, options)) void run(calls);
  }, options.schedule);
  return (asked) => new Promise((resolve, reject) => turn.add({ asked, resolve, reject }));
}

/** The calls of each step, in the order in which they came. */
function stepsOf<Q, A>(
  all: PendingCall<Q, A>[],
  {
    bytesOf = () => 0,
    keyOf,
    maxBytes = Number.POSITIVE_INFINITY,
    maxCalls = Number.POSITIVE_INFINITY,
  }: JoinOptions<Q>,
): PendingCall<Q, A>[][] {
  if (all.length === 1) return [all];
  const steps: PendingCall<Q, A>[][] = [];
  const open = new Map<string, { calls: PendingCall<Q, A>[]; bytes: number }>();
  for (const call of all) {
    const key = keyOf?.(call.asked) ?? "";
    let last = open.get(key);
    if (last === undefined || last.calls.length === maxCalls || last.bytes >= maxBytes) {
      last = { calls: [], bytes: 0 };
      open.set(key, last);
      steps.push(last.calls);
    }
    last.calls.push(call);
    last.bytes += bytesOf(call.asked);
  }
  return steps;
}
