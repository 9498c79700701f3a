import { readFileSync } from "node:fs";
import { type RequestHandler, type Response, Router } from "express";
import { z } from "zod";
import type { Operations } from "../http/operation.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { pageHeaders } from "../http/security-headers.js";
import { docsPage } from "../pages/docs-page.js";
import { style } from "../pages/style.js";
import { tryPage } from "../pages/try-page.js";

const serviceSchema = z
  .object({
    name: z.string(),
    object: z.literal("service"),
    version: z.string(),
    api: z.string(),
    urls: z.record(z.string(), z.string()),
  })
  .meta({ id: "Service" });

export const pageOperations: Operations = {
  "/": {
    get: {
      summary: "A page to try the models; service information as JSON",
      scope: null,
      answers: { 200: ["By `Accept`", { "application/json": serviceSchema, "text/html": z.string() }] },
    },
  },
  "/docs": {
    get: {
      summary: "This document as a page",
      scope: null,
      answers: { 200: ["The page", { "text/html": z.string() }] },
    },
  },
  "/docs/style.css": {
    get: {
      summary: "The style of the pages",
      scope: null,
      answers: { 200: ["The style", { "text/css": z.string() }] },
    },
  },
  "/docs/try.js": {
    get: {
      summary: "The script of the page at `/`",
      scope: null,
      answers: { 200: ["The script", { "text/javascript": z.string() }] },
    },
  },
  "/openapi.json": {
    get: {
      summary: "This document",
      scope: null,
      answers: { 200: ["OpenAPI 3.1", z.looseObject({ openapi: z.string() }).meta({ id: "OpenApi" })] },
    },
  },
};

/** `/`, `/docs` and `/openapi.json`: pages that need nothing but this API, and no key to be read. */
export function pageRoutes({
  openApi,
  version,
}: {
  version: string;
  /** Makes the OpenAPI document. */
  openApi(): Record<string, unknown>;
}): Router {
  const router = Router();
  const headers = pageHeaders();
  // Made when somebody first asks, so that no start waits for it.
  let made: { json: string; page: string } | null = null;
  const documents = () => {
    if (made === null) {
      const document = openApi();
      made = { json: JSON.stringify(document), page: docsPage(document) };
    }
    return made;
  };
  const script = readFileSync(new URL("../pages/try.js", import.meta.url), "utf8");
  const urls = {
    models: "/v1/models",
    predictions: "/v1/predictions",
    batches: "/v1/batches",
    health: "/health",
    ready: "/ready",
    metrics: "/metrics",
    docs: "/docs",
    openapi: "/openapi.json",
  };
  const information = JSON.stringify({ name: "millrace", object: "service", version, api: "v1", urls });
  const file = (type: string, text: () => string): RequestHandler[] => [
    headers,
    (_request, response) => sendText(response, type, text()),
  ];

  resource(router, "/", {
    get: [
      (request, response, next) => {
        response.vary("Accept");
        if (request.accepts("application/json", "text/html") === "text/html") next();
        else sendJson(response, 200, information);
      },
      ...file("text/html", () => tryPage),
    ],
  });
  resource(router, "/docs", { get: file("text/html", () => documents().page) });
  resource(router, "/docs/style.css", { get: file("text/css", () => style) });
  resource(router, "/docs/try.js", { get: file("text/javascript", () => script) });
  resource(router, "/openapi.json", { get: [(_request, response) => sendJson(response, 200, documents().json)] });
  return router;
}

function sendText(response: Response, type: string, text: string): void {
  response.setHeader("Content-Type", `${type}; charset=utf-8`);
  response.setHeader("Content-Length", Buffer.byteLength(text));
  response.end(text);
}
