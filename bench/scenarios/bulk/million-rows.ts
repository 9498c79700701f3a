import { batchFinished, readBack, repeated, tree, uploadBatch } from "../../harness/batches.js";
import { untilQuiet } from "../../harness/deployment.js";
import type { FlowFiles } from "../../harness/flows.js";
import { usagesOf } from "../../harness/measure.js";
import { inRoot } from "../../harness/paths.js";
import { usageOf } from "../../harness/process-usage.js";
import { withReleasers } from "../../harness/releasers.js";
import { type Figure, figure, type ScenarioContext } from "../../harness/scenario.js";
import type { Load } from "../../harness/start-load.js";
import { benchKeys, type Millrace, startMillrace } from "../../harness/start-millrace.js";
import { startProcess } from "../../harness/start-process.js";
import { startRedis } from "../../harness/start-redis.js";
import { startRunRows } from "../../harness/start-run-rows.js";
import { median } from "../../load/statistics.js";

const phases = ["upload", "run", "read", "CSV upload"] as const;

/** A floor: rows a second, and CPU seconds per million rows, which are also valid on a busy machine. */
interface Bare {
  perSecond: number;
  cpuSeconds: number;
}

interface Round {
  accepted: number;
  ran: number;
  /** From the first byte sent to the last row finished; the phases overlap, so it says more than both alone. */
  through: number;
  read: number;
  csv: number;
  parsed: Bare;
  inferred: Bare;
  /** CPU seconds of each process in each phase of the NDJSON batch, and in the upload of the CSV. */
  cpu: Record<(typeof phases)[number], Map<string, number>>;
}

/** A million rows uploaded, run and read back, each against its floor. */
export const millionRows = ({ quick, say }: ScenarioContext, load: Load, flows: FlowFiles): Promise<Figure[]> =>
  withReleasers(async (onClose) => {
    const rows = quick ? 5000 : 1_000_000;
    const stack = await startMillrace(await startRedis(onClose), { model: tree }, onClose);
    const lines = await startProcess("floor_lines", "api", inRoot("bench/dist/floor/read-lines.js"), {
      PATH: process.env.PATH,
    });
    onClose(() => lines.stop());
    const run = startRunRows(onClose);

    const parsed = async (count: number): Promise<Bare> => {
      const cpuBefore = usageOf(lines.pid).cpuSeconds;
      const sent = await load.send({ port: lines.port, http: false, before: "", ...repeated(flows, "ndjson", count) });
      if (Number(sent.body) !== count) throw new Error(`of ${count} lines the floor read ${sent.body}`);
      return {
        perSecond: (count * 1000) / (sent.answeredAt - sent.firstSentAt),
        cpuSeconds: ((usageOf(lines.pid).cpuSeconds - cpuBefore) * 1e6) / count,
      };
    };
    const inferred = async (batch: string): Promise<Bare> => {
      const chunks = Number(await stack.redis.client.hget(benchKeys(tree).batch(batch), "chunks"));
      const order = {
        model: inRoot(`models/${tree}/1/model.onnx`),
        packedFile: flows.form("packed").file,
        jsonFile: null,
        features: flows.features,
        rows,
        chunkRows: Math.ceil(rows / chunks),
      };
      const { runCpuSeconds, runMs } = await run(order);
      return { perSecond: (rows * 1000) / runMs, cpuSeconds: (runCpuSeconds * 1e6) / rows };
    };
    const whole = async (form: "ndjson" | "objects" | "csv", count: number) => {
      await untilQuiet(stack);
      const upload = await uploadBatch(load, stack, flows, form, count);
      await batchFinished(stack, upload.id, count);
      return upload.acceptedPerSecond;
    };
    const round = async (): Promise<Round> => {
      const floorBefore = await parsed(rows / 5);
      await untilQuiet(stack);
      const watch = cpuWatch(load, stack);
      const upload = await uploadBatch(load, stack, flows, "ndjson", rows);
      const uploadCpu = watch();
      const finishedAt = await batchFinished(stack, upload.id, rows);
      const runCpu = watch();
      const read = await readBack(load, stack, upload.id, rows);
      const readCpu = watch();
      const bare = await inferred(upload.id);
      await untilQuiet(stack);
      watch();
      const csv = await uploadBatch(load, stack, flows, "csv", rows);
      const csvCpu = watch();
      await batchFinished(stack, csv.id, rows);
      return {
        accepted: upload.acceptedPerSecond,
        // A batch may finish in the same millisecond in which it is accepted.
        ran: (rows * 1000) / Math.max(1, finishedAt - upload.answeredAt),
        through: (rows * 1000) / (finishedAt - upload.firstSentAt),
        read: read.rowsPerSecond,
        csv: csv.acceptedPerSecond,
        parsed: meanOf(floorBefore, await parsed(rows / 5)),
        inferred: bare,
        cpu: { upload: uploadCpu, run: runCpu, read: readCpu, "CSV upload": csvCpu },
      };
    };

    if (!quick) for (const form of ["ndjson", "csv", "objects"] as const) await whole(form, 50_000);
    const rounds: Round[] = [];
    for (let i = 1; i <= (quick ? 1 : 3); i++) {
      const one = await round();
      rounds.push(one);
      const { accepted, csv, inferred: bare, parsed: floor, ran, read } = one;
      say(
        `round ${i}, thousand rows/s: parsed bare ${kilo(floor.perSecond)}, NDJSON ${kilo(accepted)}, ` +
          `CSV ${kilo(csv)}, ` +
          `run ${kilo(ran)}, bare ${kilo(bare.perSecond)}, read back ${kilo(read)}`,
      );
    }
    const objectRows = quick ? 1000 : 200_000;
    const objects = await whole("objects", objectRows);

    const of = (read: (round: Round) => number) => median(rounds.map(read));
    const accepted = of(({ accepted }) => accepted);
    const ofParsed = of(({ accepted, parsed }) => accepted / parsed.perSecond);
    const lineCpu = of(({ parsed }) => parsed.cpuSeconds);
    const ofNdjson = of(({ accepted, csv }) => csv / accepted);
    const ofInferred = of(({ inferred, ran }) => ran / inferred.perSecond);
    const runCpu = of(({ inferred }) => inferred.cpuSeconds);
    const readPerSecond = of(({ read }) => read);
    const name = `${rows} rows`;
    return [
      figure(`${name}: NDJSON accepted, of floor`, ofParsed, "ratio", { bound: "at least", value: 0.6 }),
      figure(`${name}: NDJSON accepted`, accepted, "rows/s"),
      figure(
        `${name}: floor, lines parsed`,
        of(({ parsed }) => parsed.perSecond),
        "rows/s",
      ),
      figure(`${name}: floor, lines parsed: CPU`, lineCpu, "s/million"),
      figure(`${objectRows} rows: NDJSON of objects accepted`, objects, "rows/s"),
      figure(`${name}: CSV accepted, of NDJSON`, ofNdjson, "ratio", { bound: "at least", value: 1 }),
      figure(
        `${name}: CSV accepted`,
        of(({ csv }) => csv),
        "rows/s",
      ),
      figure(`${name}: 202 to finished, of floor`, ofInferred, "ratio", { bound: "at least", value: 0.5 }),
      figure(
        `${name}: 202 to finished`,
        of(({ ran }) => ran),
        "rows/s",
      ),
      figure(
        `${name}: first byte sent to finished`,
        of(({ through }) => through),
        "rows/s",
      ),
      figure(
        `${name}: floor, bare ONNX runs`,
        of(({ inferred }) => inferred.perSecond),
        "rows/s",
      ),
      figure(`${name}: floor, bare ONNX runs: CPU`, runCpu, "s/million"),
      figure(`${name}: results read as NDJSON`, readPerSecond, "rows/s", { bound: "at least", value: 300_000 }),
      ...phases.flatMap((phase) =>
        [...(rounds[0] as Round).cpu[phase].keys()].map((process) => {
          const seconds = of(({ cpu }) => cpu[phase].get(process) ?? 0);
          return figure(`${name}, ${phase}: CPU of ${process}`, (seconds * 1e6) / rows, "s/million");
        }),
      ),
    ];
  });

const meanOf = (a: Bare, b: Bare): Bare => ({
  perSecond: (a.perSecond + b.perSecond) / 2,
  cpuSeconds: (a.cpuSeconds + b.cpuSeconds) / 2,
});

const kilo = (perSecond: number) => Math.round(perSecond / 1000);

/** CPU seconds of each process since the last call. */
function cpuWatch(load: Load, on: Millrace): () => Map<string, number> {
  let before = usagesOf(load, on);
  return () => {
    const now = usagesOf(load, on);
    const since = new Map(
      [...now].map(([name, { cpuSeconds }]) => [name, cpuSeconds - (before.get(name)?.cpuSeconds ?? 0)] as const),
    );
    before = now;
    return since;
  };
}
