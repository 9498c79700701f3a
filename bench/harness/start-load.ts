import { fork } from "node:child_process";
import type {
  ExchangeReport,
  ExchangeSpec,
  FetchReport,
  FetchSpec,
  PaceReport,
  PaceSpec,
  SendReport,
  SendSpec,
} from "../load/bulk-spec.js";
import type { HoldReport, HoldSpec, LoadOrder, LoadReply, LoadReport, LoadSpec } from "../load/load-spec.js";
import { inRoot } from "./paths.js";
import type { OnClose } from "./releasers.js";

/** The load generator. */
export interface Load {
  pid: number;
  /** Performs one run; rejects when an answer is not as expected. */
  run(spec: LoadSpec): Promise<LoadReport>;
  /** Waits on many connections at once; rejects when an answer is not as expected. */
  hold(spec: HoldSpec): Promise<HoldReport>;
  /** Sends one large body. */
  send(spec: SendSpec): Promise<SendReport>;
  /** Reads one large body. */
  fetch(spec: FetchSpec): Promise<FetchReport>;
  /** Submits JSON batches and reads their results. */
  exchange(spec: ExchangeSpec): Promise<ExchangeReport>;
  /** Sends single predictions at a steady pace until `stop`, which resolves to the report. */
  pace(spec: PaceSpec): { stop(): Promise<PaceReport> };
}

/** Starts the generator as a separate process. */
export function startLoad(onClose: OnClose): Load {
  const child = fork(inRoot("bench/dist/load/main.js"));
  onClose(() => child.disconnect());
  const ask = (order: LoadOrder) =>
    new Promise<LoadReply>((resolve, reject) => {
      const onExit = () => reject(new Error("the load generator ended"));
      child.once("exit", onExit);
      child.once("message", (reply: LoadReply) => {
        child.off("exit", onExit);
        if ("fault" in reply) reject(new Error(reply.fault));
        else resolve(reply);
      });
      child.send(order);
    });
  return {
    pid: child.pid as number,
    run: async (spec) => ((await ask({ run: spec })) as { report: LoadReport }).report,
    hold: async (spec) => ((await ask({ hold: spec })) as { held: HoldReport }).held,
    send: async (spec) => ((await ask({ send: spec })) as { sent: SendReport }).sent,
    fetch: async (spec) => ((await ask({ fetch: spec })) as { fetched: FetchReport }).fetched,
    exchange: async (spec) => ((await ask({ exchange: spec })) as { exchanged: ExchangeReport }).exchanged,
    pace(spec) {
      const paced = ask({ pace: spec });
      // A failure before `stop` is reported by `stop`.
      paced.catch(() => undefined);
      return {
        async stop() {
          child.send({ stop: true } satisfies LoadOrder);
          return ((await paced) as { paced: PaceReport }).paced;
        },
      };
    },
  };
}
