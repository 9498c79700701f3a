import type { Answer, TestStack } from "./stack.js";

/** Concurrent callers; each sends its next prediction after the answer to the last. */
export interface SteadyTraffic {
  readonly answers: Answer[];
  /** Stops sending; resolves when all are answered. */
  stop(): Promise<Answer[]>;
}

/** Starts callers of a model; `input` makes each input from an increasing number. */
export function startSteadyTraffic(
  stack: TestStack,
  model: string,
  input: (i: number) => unknown,
  callers = 3,
): SteadyTraffic {
  const answers: Answer[] = [];
  let sent = 0;
  let stopped = false;
  const call = async () => {
    while (!stopped) answers.push(await stack.predict(model, input(sent++)));
  };
  const all = Promise.all(Array.from({ length: callers }, call));
  all.catch(() => undefined);
  return {
    answers,
    async stop() {
      stopped = true;
      await all;
      return answers;
    },
  };
}
