import type { RunningSlot, Slots } from "@millrace/workers/runs/dispatcher.js";
import type { RunItem } from "@millrace/workers/runs/frames.js";
import { type RunReply, type RunTerms, SlotDiedError, type TableReply } from "@millrace/workers/runs/slot-handle.js";

/** Slots whose runs the test ends itself; a pack holds the id of its work. */
export class ManualSlots implements Slots, RunningSlot {
  readonly runs: { ids: string[]; end(misfit?: string): void; die(reason: SlotDiedError["reason"]): void }[] = [];
  idle: number;

  constructor(slots = 1) {
    this.idle = slots;
  }

  hasIdle(): boolean {
    return this.idle > 0;
  }

  use<T>(_modelKey: number, call: (slot: RunningSlot) => Promise<T>): Promise<T> {
    return call(this);
  }

  run(_modelKey: number, packs: readonly Buffer[], _terms: RunTerms, stop?: AbortSignal): Promise<RunReply> {
    const ids = packs.map(String);
    this.idle -= 1;
    return new Promise((resolve, reject) => {
      const free = (act: () => void) => {
        this.idle += 1;
        act();
      };
      stop?.addEventListener("abort", () => free(() => reject(new SlotDiedError("closed", "stopped"))));
      this.runs.push({
        ids,
        end: (misfit) => free(() => resolve({ misfit: misfit ?? null, items: ids.map(itemOf) })),
        die: (reason) => free(() => reject(new SlotDiedError(reason, "killed"))),
      });
    });
  }

  async runTable(
    modelKey: number,
    pack: readonly [Buffer, Uint8Array],
    terms: RunTerms,
    stop?: AbortSignal,
  ): Promise<TableReply> {
    const table = Buffer.concat(pack);
    const { misfit } = await this.run(modelKey, [table], terms, stop);
    return { misfit, table };
  }

  get ids(): string[][] {
    return this.runs.map((run) => run.ids);
  }
}

/** The result of a run for the pack with that text. */
export const itemOf = (text: string): RunItem => ({
  ok: true,
  text,
  confidence: Number.NaN,
  inferenceMs: 1,
  batchRows: 1,
});
