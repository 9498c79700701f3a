import type { Logger } from "@millrace/shared/service/log.js";
import type { Request, Response } from "express";

/**
 * Puts on record refused keys, acts of operators, and reads of other owners' data; a key itself never. The log seals
 * each line into the chain of its process (`shared/service/audit-chain.ts`).
 */
export interface Audit {
  refused(request: Request, response: Response, reason: string, owner?: string): void;
  /** An act that needs `operate`, `inspect` or `admin`, with the status that it ends in. */
  admin(request: Request, response: Response, owner: string): void;
  /** A read of an owner's own data; on record only where every read is (`AUDIT_READS`). */
  read(request: Request, response: Response, owner: string): void;
  /** A read of the data of another owner, or of all (`*`). */
  inspected(request: Request, response: Response, owner: string, of: string): void;
  /** What happened to a key, by whom. */
  key(message: "key made" | "key rotated" | "key revoked", response: Response, about: Record<string, unknown>): void;
}

const longestPath = 256;

/** An audit that writes log lines with `audit: true`. `reads`: also of reads of an owner's own data. */
export function createAudit(log: Logger, { reads }: { reads: boolean }): Audit {
  const about = (request: Request, response: Response) => ({
    audit: true,
    request_id: response.locals.requestId,
    address: request.ip,
    method: request.method,
    path: `${request.baseUrl}${request.path}`.slice(0, longestPath),
  });
  const ended = (message: string, response: Response, line: object) =>
    response.once("close", () => log.info(message, { ...line, status: response.statusCode }));
  return {
    refused(request, response, reason, owner) {
      log.warn("key refused", { ...about(request, response), reason, ...(owner !== undefined && { owner }) });
    },
    admin(request, response, owner) {
      // The queue page reads what it shows every few seconds; that somebody opened it is the act.
      const looks = request.method === "GET" || request.method === "HEAD";
      if (looks && request.path !== "/" && request.baseUrl !== "") return;
      ended("admin act", response, { ...about(request, response), owner });
    },
    read(request, response, owner) {
      if (reads) ended("data read", response, { ...about(request, response), owner });
    },
    inspected(request, response, owner, of) {
      ended("other owner's data read", response, { ...about(request, response), owner, of });
    },
    key(message, response, fields) {
      const { caller, requestId } = response.locals;
      log.info(message, { audit: true, request_id: requestId, owner: caller.owner, ...fields });
    },
  };
}
