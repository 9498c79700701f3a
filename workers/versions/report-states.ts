import { beatEveryMs } from "@millrace/shared/models/beat-times.js";
import { orderKeptSeconds, orderSchema, type VersionReport } from "@millrace/shared/models/model-order.js";
import { createRefusalTeller } from "@millrace/shared/models/refused-models.js";
import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import { execMulti } from "@millrace/shared/redis/exec-multi.js";
import { orderKey, ordersChannel } from "@millrace/shared/redis/keys.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import type { Logger } from "@millrace/shared/service/log.js";
import type { VersionKeeper, VersionState } from "./version-keeper.js";

export interface StateReports {
  /** Tells what is refused now; never rejects. */
  tell(): Promise<void>;
  /** Reports that this worker has ended. May be called twice. */
  close(): Promise<void>;
}

/**
 * Writes refusals to Redis with each beat, and carries out orders to rescan the folder. A lost order costs a second or
 * two, since the folder is rescanned anyway.
 */
export async function reportStates(options: {
  redis: RedisClient;
  subscriber: RedisClient;
  keyPrefix: string;
  workerId: string;
  keeper: VersionKeeper;
  clock: Clock;
  log: Logger;
}): Promise<StateReports> {
  const { clock, keeper, keyPrefix, log, redis, subscriber, workerId } = options;
  const refusals = createRefusalTeller(redis, keyPrefix, clock);
  let closed = false;
  const tell = async () => {
    if (closed) return;
    try {
      await refusals.tell(
        keeper.states().flatMap(({ model, reason, state, version }) => {
          return state === "refused" ? [{ model, worker: workerId, version, reason: reason ?? "" }] : [];
        }),
      );
    } catch (error) {
      log.warn("refused models not told", { error });
    }
  };

  const carryOut = async (text: string) => {
    try {
      const { id, model } = orderSchema.parse(JSON.parse(text));
      await keeper.scan(true);
      await keeper.loaded(model);
      await tell();
      const key = orderKey(keyPrefix, id);
      const report = JSON.stringify(keeper.states().filter(ofModel(model)).map(reportOf));
      await execMulti(redis.multi().hset(key, workerId, report).expire(key, orderKeptSeconds));
    } catch (error) {
      log.error("rescan order failed", { error });
    }
  };

  const orders = ordersChannel(keyPrefix);
  subscriber.on("message", (channel: string, text: string) => {
    if (channel === orders) void carryOut(text);
  });
  await subscriber.subscribe(orders);
  const telling = setInterval(tell, beatEveryMs);
  return {
    tell,
    async close() {
      closed = true;
      clearInterval(telling);
      await refusals.tell([]);
    },
  };
}

const ofModel = (name: string) => (state: VersionState) => state.model === name;

const reportOf = ({ digest, reason, state, version }: VersionState): VersionReport => ({
  version,
  state,
  digest,
  reason,
});
