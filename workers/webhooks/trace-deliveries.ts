import type { RedisClient } from "@millrace/shared/redis/connect-redis.js";
import type { ModelKeys } from "@millrace/shared/redis/keys.js";
import type { Tracing } from "@millrace/shared/service/tracing.js";
import type { WebhookSender } from "./deliver-webhook.js";

/** A span for each try of a webhook, in the trace of the request that submitted the work. */
export function traceDeliveries(
  tracing: Tracing,
  redis: RedisClient,
  keys: ModelKeys,
  sender: Pick<WebhookSender, "send">,
): Pick<WebhookSender, "send"> {
  return {
    async send(message) {
      const { data, type } = JSON.parse(message.body) as { type: string; data: { id: string } };
      const parent = (await redis.get(keys.trace(data.id))) ?? undefined;
      const attributes = { "millrace.prediction_id": data.id, "millrace.delivery_id": message.id };
      const span = tracing.start(`webhook ${type}`, { kind: "client", parent, attributes });
      const answer = await sender.send(message);
      span.end({ fault: answer.error, attributes: { "http.response.status_code": answer.status ?? 0 } });
      return answer;
    },
  };
}
