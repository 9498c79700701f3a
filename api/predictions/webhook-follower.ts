import { checkWebhookUrl, type WebhookAllowances, WebhookTargetError } from "@millrace/shared/access/webhook-target.js";
import type { Follower, WebhookEvent } from "@millrace/shared/predictions/delivery.js";
import { newId } from "@millrace/shared/redis/ids.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { KnownModel } from "../models/model-directory.js";

export interface FollowerDependencies {
  webhooksSigned: boolean;
  webhookAllowances: WebhookAllowances;
}

/**
 * Who asks for a webhook, with an id for each delivery that may come of it, as JSON; null for who asks for none. Throws
 * `invalid_request` for a URL that none may go to.
 */
export async function followerOf(
  deps: FollowerDependencies,
  model: KnownModel,
  owner: string,
  webhook: { url: string; events: readonly WebhookEvent[] } | undefined,
): Promise<string | null> {
  if (webhook === undefined) return null;
  if (!deps.webhooksSigned)
    throw new ServiceError("not_supported", "Webhooks cannot be signed: WEBHOOK_SECRET is not set.");
  try {
    await checkWebhookUrl(webhook.url, deps.webhookAllowances);
  } catch (fault) {
    if (!(fault instanceof WebhookTargetError)) throw fault;
    throw new ServiceError("invalid_request", fault.message, {
      complaints: [{ detail: fault.message, pointer: "/webhook/url" }],
    });
  }
  const follower: Follower = { owner, url: webhook.url, ids: {} };
  for (const event of webhook.events) follower.ids[event] = newId(model.keys.tag);
  return JSON.stringify(follower);
}
