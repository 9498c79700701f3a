import { flowBody } from "../harness/bodies.js";
import { measure, type Round } from "../harness/measure.js";
import type { OnClose } from "../harness/releasers.js";
import { type Figure, figure, type Scenario } from "../harness/scenario.js";
import { startFloor } from "../harness/start-floor.js";
import { startLoad } from "../harness/start-load.js";
import { startRedis } from "../harness/start-redis.js";
import { median } from "../load/statistics.js";

/** Rates of bare Express and bare BullMQ, the floor of `single-async` and `single-wait`. */
export const floor: Scenario = async ({ onClose, quick, say }) => {
  const load = startLoad(onClose);
  const body = await flowBody();
  const figures: Figure[] = [];
  const run = async (name: string, connections: number, requests: number, waiting: boolean) => {
    const rounds = await alone(waiting, { body, connections, requests, waiting });
    say(`${name}: done`);
    figures.push(figure(`${name}: finished`, median(rounds.map((round) => round.finishedPerSecond)), "1/s"));
    for (const p of ["p50", "p95", "p99"] as const) {
      figures.push(figure(`${name}: answer ${p}`, median(rounds.map((round) => round.latency[p])), "ms"));
    }
  };
  const alone = async (waiting: boolean, shape: Parameters<typeof measure>[2]): Promise<Round[]> => {
    const releasers: Parameters<OnClose>[0][] = [];
    const later: OnClose = (release) => releasers.push(release);
    onClose(async () => {
      for (const release of releasers.reverse()) await release();
    });
    const deployment = await startFloor(await startRedis(later), { waiting }, later);
    const rounds: Round[] = [];
    await measure(load, deployment, { ...shape, requests: Math.ceil(shape.requests / 5) });
    for (let i = 0; i < (quick ? 1 : 3); i++) rounds.push(await measure(load, deployment, shape));
    for (const release of releasers.splice(0).reverse()) await release();
    return rounds;
  };
  await run("64 connections", 64, quick ? 500 : 15_000, false);
  await run("waiting, 1 connection", 1, quick ? 50 : 1000, true);
  await run("waiting, 100 connections", 100, quick ? 500 : 8000, true);
  return figures;
};
