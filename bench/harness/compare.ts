import { median } from "../load/statistics.js";
import type { Deployment } from "./deployment.js";
import { type LoadShape, measure, type Round } from "./measure.js";
import { type Figure, figure } from "./scenario.js";
import type { Load } from "./start-load.js";

/** Alternating rounds of floor and ours, so that other load on the machine affects both alike. */
export interface Comparison {
  floor: Round[];
  ours: Round[];
}

/** Warms both up and then measures them alternately, `rounds` times each. */
export async function compare(
  load: Load,
  floor: Deployment,
  ours: Deployment,
  shape: LoadShape & { warmUp: number; rounds: number },
  say: (line: string) => void,
): Promise<Comparison> {
  const result: Comparison = { floor: [], ours: [] };
  for (const on of [floor, ours]) await measure(load, on, { ...shape, requests: shape.warmUp });
  for (let i = 1; i <= shape.rounds; i++) {
    for (const on of [floor, ours]) {
      const round = await measure(load, on, shape);
      result[on.name].push(round);
      const { p50, p99 } = round.latency;
      say(
        `round ${i} of ${shape.rounds}, ${on.name}: ${Math.round(round.finishedPerSecond)} finished/s, ` +
          `p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`,
      );
    }
  }
  return result;
}

/** The median of `read` over the pairs of rounds. */
export function pairwise({ floor, ours }: Comparison, read: (ours: Round, floor: Round) => number): number {
  return median(ours.map((round, i) => read(round, floor[i] as Round)));
}

/** CPU time per prediction and peak memory of every process, medians over the rounds. */
export function usageFigures(name: string, rounds: readonly Round[], requests: number): Figure[] {
  const processes = [...(rounds[0] as Round).usage.keys()];
  const of = (process: string, field: "cpuSeconds" | "peakMiB") =>
    median(rounds.map((round) => round.usage.get(process)?.[field] ?? 0));
  return [
    ...processes.map((process) =>
      figure(`${name}: CPU of ${process}`, (of(process, "cpuSeconds") * 1e6) / requests, "s/million"),
    ),
    ...processes.map((process) => figure(`${name}: peak memory of ${process}`, of(process, "peakMiB"), "MiB")),
  ];
}
