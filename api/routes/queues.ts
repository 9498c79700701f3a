import { type RedisClient, whenReady } from "@millrace/shared/redis/connect-redis.js";
import { redriveKeys, redrivesName } from "@millrace/shared/redis/keys.js";
import { ServiceError } from "@millrace/shared/service/errors.js";
import type { Queue } from "bullmq";
import { type Request, type RequestHandler, type Response, Router } from "express";
import type { Audit } from "../access/audit.js";
import { sendProblem } from "../http/problem.js";
import { pageHeaders } from "../http/security-headers.js";
import type { ModelDirectory } from "../models/model-directory.js";
import { readableJob } from "../predictions/readable-job.js";

/** The page's own connection waits for Redis; a request for the page should not. */
const readyMs = 1500;
const lookMs = 60_000;
const mostLooks = 1000;
const basePath = "/admin/queues";

/** Bull Board under `/admin/queues`, read-only. It is loaded when somebody first opens it. */
export function queueRoutes(deps: {
  directory: ModelDirectory;
  keyPrefix: string;
  openRedis(): RedisClient;
  audit: Audit;
  mayInspect: RequestHandler;
  onClose(release: () => Promise<void>): void;
}): Router {
  const router = Router();
  const recordLook = lookRecorder(deps.audit);
  let board: Promise<RequestHandler> | null = null;

  router.use(
    basePath,
    (request, response, next) => {
      try {
        deps.mayInspect(request, response, next);
      } catch (fault) {
        // Only a challenge makes a browser ask for the key.
        if (fault instanceof ServiceError && fault.code === "unauthenticated") {
          throw new ServiceError("unauthenticated", fault.message, {
            headers: { "WWW-Authenticate": 'Basic realm="millrace", charset="UTF-8"' },
          });
        }
        throw fault;
      }
    },
    readOnly,
    (request, response, next) => {
      if (request.path.startsWith("/api/")) recordLook(request, response);
      next();
    },
    async (request, response, next) => {
      board ??= openBoard(deps).catch((fault) => {
        board = null;
        throw fault;
      });
      (await board)(request, response, next);
    },
  );
  return router;
}

/**
 * Puts on record what of all owners' jobs a caller looks at, once in a minute: the page asks again every few seconds.
 */
function lookRecorder(audit: Audit): (request: Request, response: Response) => void {
  const looks = new Map<string, number>();
  return (request, response) => {
    const { owner } = response.locals.caller;
    const look = `${owner} ${request.url}`;
    const now = performance.now();
    if (now - (looks.get(look) ?? Number.NEGATIVE_INFINITY) < lookMs) return;
    if (looks.size >= mostLooks) looks.clear();
    looks.set(look, now);
    audit.inspected(request, response, owner, "*");
  };
}

/** Answers 405 to any other method than a read, before the page's own parser of bodies sees it. */
const readOnly: RequestHandler = ({ method }, _response, next) => {
  if (method === "GET" || method === "HEAD") return next();
  throw new ServiceError("method_not_allowed", "The queue page is read-only.", { headers: { Allow: "GET, HEAD" } });
};

async function openBoard(deps: Parameters<typeof queueRoutes>[0]): Promise<RequestHandler> {
  const bullmq = await import("bullmq");
  const { createBullBoard } = await import("@bull-board/api");
  const { BullMQAdapter } = await import("@bull-board/api/bullMQAdapter");
  const { ExpressAdapter } = await import("@bull-board/express");
  const connection = deps.openRedis();
  const queues = new Map<string, Queue>();
  deps.onClose(async () => {
    await Promise.all([...queues.values()].map((queue) => queue.close()));
    connection.disconnect();
  });
  const server = new ExpressAdapter();
  server.setBasePath(basePath);
  const board = createBullBoard({
    queues: [],
    serverAdapter: server,
    options: { uiConfig: { boardTitle: "Millrace" } },
  });
  const handle = server.getRouter() as RequestHandler;
  const headers = pageHeaders({ inlineStyles: true });
  const add = (queueName: string, prefix: string, format: (data: unknown) => unknown = (data) => data) => {
    const queue = new bullmq.Queue(queueName, { connection: connection as never, prefix, skipMetasUpdate: true });
    queue.on("error", () => undefined);
    queues.set(queueName, queue);
    const adapter = new BullMQAdapter(queue, { readOnlyMode: true });
    adapter.setFormatter("data", format);
    board.addQueue(adapter);
  };
  add(redrivesName, redriveKeys(deps.keyPrefix).queuePrefix);
  return async (request, response, next) => {
    await whenReady(connection, readyMs).catch((cause) => {
      throw new ServiceError("redis_unavailable", "Redis does not answer.", { retryAfterSeconds: 1, cause });
    });
    headers(request, response, () => undefined);
    useProblemJson(response);
    for (const { keys, name } of deps.directory.all()) {
      if (queues.has(name)) continue;
      for (const queueName of [name, keys.batchQueueName, keys.webhookQueueName]) {
        add(queueName, keys.queuePrefix, (data) => readableJob(data, deps.directory, name));
      }
    }
    handle(request, response, next);
  };
}

/** Replaces the error bodies of the board by problems. */
function useProblemJson(response: Response): void {
  const json = response.json.bind(response);
  response.json = (body: unknown) => {
    const { statusCode } = response;
    if (statusCode < 400) return json(body);
    response.json = json;
    if (statusCode === 404) sendProblem(response, new ServiceError("not_found", "There is no such queue or job."));
    else if (statusCode < 500)
      sendProblem(response, new ServiceError("malformed_request", "The queue page cannot do that."));
    else sendProblem(response, new ServiceError("internal_error", "The queue page failed."));
    return response;
  };
}
