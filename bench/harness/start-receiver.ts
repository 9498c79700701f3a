import { fork } from "node:child_process";
import { once } from "node:events";
import type { Arrivals, Expectation, ReceiverNote } from "../load/receiver-spec.js";
import { inRoot } from "./paths.js";
import type { OnClose } from "./releasers.js";

/** The receiver of webhooks. */
export interface Receiver {
  pid: number;
  url: string;
  /** Restarts the count; `arrived` resolves when all have come, and rejects if they do not within a minute. */
  expect(expectation: Expectation): Promise<{ arrived: Promise<Arrivals> }>;
}

const deadlineMs = 60_000;

/** Starts the receiver as a separate process. */
export async function startReceiver(onClose: OnClose): Promise<Receiver> {
  const child = fork(inRoot("bench/dist/load/receiver.js"));
  onClose(() => child.disconnect());
  const next = async <T extends ReceiverNote>(signal?: AbortSignal) => {
    const [note] = await once(child, "message", { ...(signal && { signal }) });
    return note as T;
  };
  const { port } = await next<{ port: number }>();
  return {
    pid: child.pid as number,
    url: `http://127.0.0.1:${port}/`,
    async expect(expectation) {
      child.send(expectation);
      await next<{ listening: true }>();
      const arrived = next<{ arrivals: Arrivals }>(AbortSignal.timeout(deadlineMs)).then(
        ({ arrivals }) => arrivals,
        () => {
          throw new Error(`${expectation.webhooks} webhooks did not arrive within ${deadlineMs} ms`);
        },
      );
      // A caller that fails before awaiting it reports its own reason.
      arrived.catch(() => undefined);
      return { arrived };
    },
  };
}
