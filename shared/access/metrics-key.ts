import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";

/**
 * Whether a request may see metrics: there is no `METRICS_KEY`, or the request has it as `Authorization: Bearer` or
 * `X-API-Key`. The time of the comparison tells nothing of the key.
 */
export function opensMetrics(headers: IncomingHttpHeaders, metricsKey: string | undefined): boolean {
  if (metricsKey === undefined) return true;
  const bearer = /^bearer +(.*)$/i.exec(headers.authorization ?? "")?.[1];
  const presented = bearer ?? headers["x-api-key"];
  return typeof presented === "string" && timingSafeEqual(digest(presented.trim()), digest(metricsKey));
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
