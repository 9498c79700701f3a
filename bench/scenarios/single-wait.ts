import { flowBody, forest } from "../harness/bodies.js";
import { compare, pairwise, usageFigures } from "../harness/compare.js";
import { type Figure, figure, type Scenario } from "../harness/scenario.js";
import { startFloor } from "../harness/start-floor.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

/** `Prefer: wait=30`: the latency for one caller, and for a hundred, against the floor. */
export const singleWait: Scenario = async ({ onClose, quick, say }) => {
  const load = startLoad(onClose);
  const floor = await startFloor(await startRedis(onClose), { waiting: true }, onClose);
  const ours = await startMillrace(await startRedis(onClose), { model: forest }, onClose);
  const body = await flowBody();
  const rounds = quick ? 1 : 7;
  const waiting = true;

  const one = { body, waiting, connections: 1, requests: quick ? 50 : 600, warmUp: quick ? 20 : 600, rounds };
  const alone = await compare(load, floor, ours, one, say);
  const many = { body, waiting, connections: 100, requests: quick ? 300 : 5000, warmUp: quick ? 100 : 3000, rounds };
  const crowd = await compare(load, floor, ours, many, say);

  const figures: Figure[] = [
    figure(
      "1 connection: p50, beyond floor's",
      pairwise(alone, (a, b) => a.latency.p50 - b.latency.p50),
      "ms",
      { bound: "at most", value: 0.5 },
    ),
    figure("100 connections: p99", median(crowd.ours.map((round) => round.latency.p99)), "ms", {
      bound: "below",
      value: 250,
    }),
    figure(
      "100 connections: finished, of floor",
      pairwise(crowd, (a, b) => a.finishedPerSecond / b.finishedPerSecond),
      "ratio",
    ),
  ];
  for (const [shape, { connections, requests }] of [
    [alone, one],
    [crowd, many],
  ] as const) {
    for (const name of ["ours", "floor"] as const) {
      const label = `${name}, ${connections} connection${connections === 1 ? "" : "s"}`;
      figures.push(figure(`${label}: finished`, median(shape[name].map((round) => round.finishedPerSecond)), "1/s"));
      for (const p of ["p50", "p95", "p99"] as const) {
        figures.push(figure(`${label}: ${p}`, median(shape[name].map((round) => round.latency[p])), "ms"));
      }
      figures.push(...usageFigures(label, shape[name], requests));
    }
  }
  return figures;
};
