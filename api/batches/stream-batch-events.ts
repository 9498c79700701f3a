import { type BatchRecord, batchJson } from "@millrace/shared/predictions/batch.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { readBatch } from "@millrace/shared/scripts/batches/read-batch.js";
import type { Response } from "express";
import { StatusEvents } from "../http/event-stream.js";
import type { KnownModel } from "../models/model-directory.js";
import type { Notices } from "../predictions/notices.js";

const lookEveryMs = 250;

type OnLook = (batch: BatchRecord | null) => void;

/** Looks at batches that somebody watches, four times a second each, however many watch it. */
export class BatchWatch {
  readonly #redis: RedisClient;
  readonly #watched = new Map<string, { listeners: Set<OnLook>; timer: NodeJS.Timeout }>();

  constructor(redis: RedisClient) {
    this.#redis = redis;
  }

  /** Calls `onLook` with what is found, until the function that it returns is called. */
  watch({ keys }: KnownModel, id: string, onLook: OnLook): () => void {
    const watched = this.#watched.get(id) ?? {
      listeners: new Set<OnLook>(),
      timer: setInterval(() => look(), lookEveryMs),
    };
    const look = () => {
      readBatch(this.#redis, keys, id).then(
        (batch) => {
          for (const listener of watched.listeners) listener(batch);
        },
        // The store is away for a moment; the next look may find it.
        () => undefined,
      );
    };
    this.#watched.set(id, watched);
    watched.listeners.add(onLook);
    return () => {
      watched.listeners.delete(onLook);
      if (watched.listeners.size > 0) return;
      clearInterval(watched.timer);
      if (this.#watched.get(id) === watched) this.#watched.delete(id);
    };
  }
}

/** Sends a batch's states as events, at most four a second, until it is final. Its state is how far it is. */
export async function streamBatchEvents(
  deps: { watch: BatchWatch; notices: Notices; clock: Clock },
  model: KnownModel,
  id: string,
  first: BatchRecord,
  response: Response,
  gone: AbortSignal,
): Promise<void> {
  const events = StatusEvents.open(response, { id: stateId(first), final: first.json !== null });
  if (events === null) return;
  const show = (batch: BatchRecord) => events.show(stateId(batch), () => batchJson(batch, deps.clock.now()));
  const begunAt = performance.now();
  show(first);
  if (first.json === null && !gone.aborted) {
    await new Promise<void>((resolve) => {
      const stop = deps.watch.watch(model, id, (batch) => {
        if (batch === null || deps.notices.closed) return end();
        // Others may have set the pace of looking; and who does not read is not written to.
        if (performance.now() - begunAt < lookEveryMs || events.isBehind) return;
        show(batch);
        if (batch.json !== null) end();
      });
      const end = () => {
        stop();
        resolve();
      };
      gone.addEventListener("abort", end);
    });
  }
  events.end();
}

const stateId = ({ canceled, failed, json, startedAt, succeeded }: BatchRecord): string =>
  `${json !== null ? "final" : startedAt === null ? "queued" : "running"}-${succeeded}-${failed}-${canceled}`;
