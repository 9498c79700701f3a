import type { Logger } from "@millrace/shared/service/log.js";
import type { Request, Response } from "express";

/** Puts on record who was refused and who did what only an admin may; a key itself never. */
export interface Audit {
  refused(request: Request, response: Response, reason: string, owner?: string): void;
  admin(request: Request, response: Response, owner: string): void;
}

const longestPath = 256;

/** An audit that writes log lines `key refused` and `admin act`, the latter with the status that it ended in. */
export function createAudit(log: Logger): Audit {
  const about = (request: Request, response: Response) => ({
    audit: true,
    request_id: response.locals.requestId,
    address: request.ip,
    method: request.method,
    path: `${request.baseUrl}${request.path}`.slice(0, longestPath),
  });
  return {
    refused(request, response, reason, owner) {
      log.warn("key refused", { ...about(request, response), reason, ...(owner !== undefined && { owner }) });
    },
    admin(request, response, owner) {
      // The queue page reads what it shows every few seconds; that somebody opened it is the act.
      const reads = request.method === "GET" || request.method === "HEAD";
      if (reads && request.path !== "/" && request.baseUrl !== "") return;
      const line = { ...about(request, response), owner };
      response.once("close", () => log.info("admin act", { ...line, status: response.statusCode }));
    },
  };
}
