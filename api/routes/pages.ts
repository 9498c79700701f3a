import { readFileSync } from "node:fs";
import { type RequestHandler, type Response, Router } from "express";
import { acceptedType } from "../http/http-preferences.js";
import { sendJson } from "../http/request-context.js";
import { resource } from "../http/resource.js";
import { pageHeaders } from "../http/security-headers.js";
import { docsPage } from "../pages/docs-page.js";
import { style } from "../pages/style.js";
import { tryPage } from "../pages/try-page.js";

/** `/`, `/docs` and `/openapi.json`: pages that need nothing but this API, and no key to be read. */
export function pageRoutes({
  openApi,
  version,
}: {
  version: string;
  /** Makes the OpenAPI document. */
  openApi(): Promise<Record<string, unknown>>;
}): Router {
  const router = Router();
  const headers = pageHeaders();
  // Made when somebody first asks, so that no start waits for it.
  let made: Promise<{ json: string; page: string }> | null = null;
  const documents = () => {
    made ??= openApi().then((document) => ({ json: JSON.stringify(document), page: docsPage(document) }));
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
  const file = (type: string, text: () => string | Promise<string>): RequestHandler[] => [
    headers,
    async (_request, response) => sendText(response, type, await text()),
  ];

  resource(router, "/", {
    get: [
      (request, response, next) => {
        response.vary("Accept");
        if (acceptedType(request, ["application/json", "text/html"]) === "text/html") next();
        else sendJson(response, 200, information);
      },
      ...file("text/html", () => tryPage),
    ],
  });
  resource(router, "/docs", { get: file("text/html", async () => (await documents()).page) });
  resource(router, "/docs/style.css", { get: file("text/css", () => style) });
  resource(router, "/docs/try.js", { get: file("text/javascript", () => script) });
  resource(router, "/openapi.json", {
    get: [async (_request, response) => sendJson(response, 200, (await documents()).json)],
  });
  return router;
}

function sendText(response: Response, type: string, text: string): void {
  response.setHeader("Content-Type", `${type}; charset=utf-8`);
  response.setHeader("Content-Length", Buffer.byteLength(text));
  response.end(text);
}
