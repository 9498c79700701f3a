import { ServiceError } from "@millrace/shared/service/errors.js";
import type { RequestHandler, Router } from "express";

type Method = "get" | "post" | "put";

/** Routes the methods of one path; any other method is answered with 405 and `Allow`. */
export function resource(router: Router, path: string, handlers: Partial<Record<Method, RequestHandler[]>>): void {
  const allowed = Object.keys(handlers).map((method) => method.toUpperCase());
  if (handlers.get !== undefined) allowed.push("HEAD");
  const route = router.route(path);
  for (const [method, chain] of Object.entries(handlers) as [Method, RequestHandler[]][]) route[method](...chain);
  route.all((request) => {
    const detail = `${request.method} is not for this path`;
    throw new ServiceError("method_not_allowed", detail, { headers: { Allow: allowed.join(", ") } });
  });
}
