import { ServiceError } from "@millrace/shared/service/errors.js";
import type { RequestHandler, Router } from "express";

type Method = "get" | "post" | "put";

/** The parameters that a path names, such as `{ id: string }` of `/v1/predictions/:id`. */
export type PathParams<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? Record<Name, string> & PathParams<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? Record<Name, string>
    : Record<never, string>;

/** Routes the methods of one path; any other method is answered with 405 and `Allow`. */
export function resource<Path extends string>(
  router: Router,
  path: Path,
  handlers: Partial<Record<Method, readonly RequestHandler<PathParams<Path>>[]>>,
): void {
  const allowed = Object.keys(handlers).map((method) => method.toUpperCase());
  if (handlers.get !== undefined) allowed.push("HEAD");
  const route = router.route<string>(path);
  for (const [method, chain] of Object.entries(handlers) as [Method, RequestHandler[]][]) route[method](...chain);
  route.all((request) => {
    const detail = `${request.method} is not allowed here.`;
    throw new ServiceError("method_not_allowed", detail, { headers: { Allow: allowed.join(", ") } });
  });
}
