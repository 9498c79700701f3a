import { flowBody, forest } from "../harness/bodies.js";
import { compare, pairwise } from "../harness/compare.js";
import { figure, type Scenario } from "../harness/scenario.js";
import { startLoad } from "../harness/start-load.js";
import { startMillrace } from "../harness/start-millrace.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

/** Cost of limits: single predictions accepted and finished a second with every possible limit set, against without. */
export const limits: Scenario = async ({ onClose, quick, say }) => {
  const load = startLoad(onClose);
  const without = await startMillrace(await startRedis(onClose), { model: forest }, onClose);
  const settings = {
    RATE_LIMIT_PER_MINUTE: "100000000",
    RATE_LIMIT_ROWS_PER_MINUTE: "100000000",
    FAILED_LOGINS_PER_MINUTE: "100",
    MAX_OWNER_PART: "0.9",
    OWNER_WEIGHTS: "bench:2",
  };
  const ours = await startMillrace(await startRedis(onClose), { model: forest, settings }, onClose);
  const shape = {
    body: await flowBody(),
    connections: 64,
    requests: quick ? 500 : 15_000,
    warmUp: quick ? 200 : 5000,
    rounds: quick ? 1 : 7,
    waiting: false,
  };
  const compared = await compare(load, { ...without, name: "floor" }, ours, shape, say);
  const ratio = pairwise(compared, (a, b) => a.finishedPerSecond / b.finishedPerSecond);
  return [
    figure("with limits, of without", ratio, "ratio", { bound: "at least", value: 0.9 }),
    figure("with limits", median(compared.ours.map((round) => round.finishedPerSecond)), "1/s"),
    figure("without", median(compared.floor.map((round) => round.finishedPerSecond)), "1/s"),
  ];
};
