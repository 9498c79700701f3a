import { lookup as dnsLookup, type LookupAddress } from "node:dns";
import http from "node:http";
import https from "node:https";
import { isIP, type LookupFunction } from "node:net";
import {
  checkSpelling,
  isPublic,
  type WebhookAllowances,
  type WebhookTarget,
  WebhookTargetError,
} from "@millrace/shared/access/webhook-target.js";
import type { Clock } from "@millrace/shared/redis/store-clock.js";
import { Webhook } from "standardwebhooks";
import { retryAfterMs } from "./delivery-delay.js";
import { runningDeadline } from "./running-deadline.js";

/** The outcome of one try; `status` is null without an answer. */
export interface DeliveryAnswer {
  status: number | null;
  /** `Retry-After` of the answer, in ms; null without one. */
  retryAfterMs: number | null;
  error: string | null;
  /** The first bytes of the answer's body. */
  response: string | null;
  durationMs: number;
}

export interface WebhookMessage {
  id: string;
  url: string;
  body: string;
}

const largestResponseBytes = 4096;

/**
 * Posts signed webhooks: no redirects, at most 4 KiB of an answer's body, never unpacked, `deadlineMs` in all by
 * `runningDeadline`. The address is checked within the look-up of the connection, so that it cannot change in between.
 */
export function createWebhookSender(options: {
  secrets: readonly string[];
  allow: WebhookAllowances;
  deadlineMs: number;
  clock: Clock;
}) {
  const { deadlineMs } = options;
  const signers = options.secrets.map((secret) => new Webhook(secret));
  const agentOptions = { keepAlive: true, keepAliveMsecs: 5000, maxFreeSockets: 64, timeout: deadlineMs };
  // Idle sockets belong to a target as its look-up does: an allowed name must not lend them to another.
  const agents = {
    guarded: { http: new http.Agent(agentOptions), https: new https.Agent(agentOptions) },
    opened: { http: new http.Agent(agentOptions), https: new https.Agent(agentOptions) },
  };

  const post = (target: WebhookTarget, message: WebhookMessage): Promise<DeliveryAnswer> => {
    const begun = performance.now();
    const now = new Date(options.clock.now());
    const secure = target.url.protocol === "https:";
    const set = target.allowed ? agents.opened : agents.guarded;
    return new Promise((resolve) => {
      let settled = false;
      const settle = (answer: Omit<DeliveryAnswer, "durationMs">) => {
        if (settled) return;
        settled = true;
        callOff();
        resolve({ ...answer, durationMs: Math.round(performance.now() - begun) });
      };
      const fail = (error: string, status: number | null = null) =>
        settle({ status, retryAfterMs: null, error, response: null });
      const request = (secure ? https : http).request(target.url, {
        method: "POST",
        agent: secure ? set.https : set.http,
        ...(!target.allowed && { lookup: guardedLookup }),
        headers: {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(message.body),
          "user-agent": "Millrace-Webhooks/1",
          "webhook-id": message.id,
          "webhook-timestamp": String(Math.floor(now.getTime() / 1000)),
          "webhook-signature": signers.map((signer) => signer.sign(message.id, now, message.body)).join(" "),
        },
      });
      const callOff = runningDeadline(deadlineMs, () => {
        fail(`no complete answer within ${deadlineMs / 1000} s`);
        request.destroy();
      });
      request.on("error", (error: NodeJS.ErrnoException) => fail(faultOf(error)));
      request.on("response", (response) => {
        const status = response.statusCode as number;
        const chunks: Buffer[] = [];
        let bytes = 0;
        const end = (whole: boolean) => {
          const good = status >= 200 && status < 300;
          settle({
            status,
            retryAfterMs: retryAfterMs(response.headers["retry-after"], options.clock.now()),
            error: good ? null : `answered ${status}`,
            response: Buffer.concat(chunks).subarray(0, largestResponseBytes).toString("utf8"),
          });
          // The rest of a long body is not worth keeping the connection.
          if (!whole) request.destroy();
        };
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes >= largestResponseBytes) end(false);
        });
        response.on("end", () => end(true));
        response.on("error", () => end(false));
      });
      request.end(message.body);
    });
  };

  return {
    /** One try. Never rejects: a fault is in the answer. */
    async send(message: WebhookMessage): Promise<DeliveryAnswer> {
      let target: WebhookTarget;
      try {
        target = checkSpelling(message.url, options.allow);
      } catch (fault) {
        return { status: null, retryAfterMs: null, error: (fault as Error).message, response: null, durationMs: 0 };
      }
      return post(target, message);
    },
    close(): void {
      for (const set of Object.values(agents)) {
        set.http.destroy();
        set.https.destroy();
      }
    },
  };
}

export type WebhookSender = ReturnType<typeof createWebhookSender>;

/** Looks a name up; fails unless every address is public. */
const guardedLookup: LookupFunction = (hostname, options, callback) => {
  dnsLookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, "", 0);
    const found = addresses as unknown as LookupAddress[];
    if (found.length === 0 || found.some(({ address }) => isIP(address) === 0 || !isPublic(address))) {
      return callback(new WebhookTargetError("the host leads to an address that webhooks may not go to"), "", 0);
    }
    if (options.all) return (callback as unknown as (error: null, found: LookupAddress[]) => void)(null, found);
    const [first] = found as [LookupAddress];
    return callback(null, first.address, first.family);
  });
};

/** A fault in words that do not reveal this side's network. */
function faultOf(error: NodeJS.ErrnoException): string {
  if (error instanceof WebhookTargetError) return error.message;
  return error.code === undefined ? "the connection failed" : `the connection failed (${error.code})`;
}
