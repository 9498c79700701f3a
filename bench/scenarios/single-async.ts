import { flowBody, forest } from "../harness/bodies.js";
import { compare, pairwise, usageFigures } from "../harness/compare.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startFloor } from "../harness/start-floor.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace, workerMetric } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

const connections = 64;

/** Single predictions accepted and finished a second, without waiting callers, against the floor. */
export const singleAsync: Scenario = async ({ onClose, quick, say }) => {
  const load = startLoad(onClose);
  const floor = await startFloor(await startRedis(onClose), { waiting: false }, onClose);
  const ours = await startMillrace(await startRedis(onClose), { model: forest }, onClose);
  const shape = {
    body: await flowBody(),
    connections,
    requests: quick ? 500 : 15_000,
    warmUp: quick ? 200 : 5000,
    rounds: quick ? 1 : 7,
    waiting: false,
  };
  const compared = await compare(load, floor, ours, shape, say);

  const submitted = shape.warmUp + shape.rounds * shape.requests;
  const succeeded = await workerMetric(ours.workers, "ml_prediction_total", 'status="succeeded"');
  if (succeeded !== submitted) throw new Error(`${submitted} predictions were accepted, but ${succeeded} succeeded`);

  const ratio = pairwise(compared, (a, b) => a.finishedPerSecond / b.finishedPerSecond);
  return [
    figure("accepted and finished, of floor", ratio, "ratio", { bound: "at least", value: 0.8 }),
    ...(["ours", "floor"] as const).flatMap((name) => {
      const rounds = compared[name];
      return [
        figure(`${name}: accepted and finished`, median(rounds.map((round) => round.finishedPerSecond)), "1/s"),
        figure(`${name}: accepted`, median(rounds.map((round) => round.answeredPerSecond)), "1/s"),
        ...(["p50", "p95", "p99"] as const).map((p) =>
          figure(`${name}: answer ${p}`, median(rounds.map((round) => round.latency[p])), "ms"),
        ),
        ...usageFigures(name, rounds, shape.requests),
      ];
    }),
  ];
};
