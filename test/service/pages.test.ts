import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { assertProblem } from "../support/http/problem.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const model = "intrusion-decision-tree";
const html = { accept: "text/html,application/xhtml+xml,*/*;q=0.8" };

describe("pages and the OpenAPI document", () => {
  let stack: TestStack;
  // biome-ignore lint/suspicious/noExplicitAny: parsed JSON
  let document: any;

  beforeAll(async () => {
    stack = await TestStack.start({ models: [model], env: { CORS_ORIGINS: "https://app.example" } });
    document = (await stack.get("/openapi.json", { as: null })).body;
  });
  afterAll(() => stack.close());

  test("/ is a page for a browser and service information for a program", async () => {
    const page = await stack.get("/", { as: null, headers: html });
    expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(page.body).toContain("<title>Millrace</title>");
    for (const accept of ["application/json", "*/*"]) {
      const information = await stack.get("/", { as: null, headers: { accept } });
      expect(information.body).toMatchObject({
        name: "millrace",
        object: "service",
        urls: { openapi: "/openapi.json" },
      });
      expect(information.headers.get("vary")).toMatch(/accept/i);
    }
  });

  test("pages load nothing from other origins, contain no inline script, and enforce both by CSP", async () => {
    const pages = await Promise.all(["/", "/docs"].map((path) => stack.get(path, { as: null, headers: html })));
    for (const { body, headers } of pages) {
      expect(headers.get("content-security-policy")).toMatch(/default-src 'none'.*script-src 'self'/);
      expect(headers.get("content-security-policy")).not.toMatch(/unsafe|https?:/);
      expect(headers.get("x-frame-options")).toBe("DENY");
      expect(body).not.toMatch(/(?:src|href)="(?:https?:)?\/\//);
      expect(body).not.toMatch(/<script(?![^>]*src=)|\son\w+=|\sstyle=|javascript:/i);
      for (const [, path] of body.matchAll(/(?:src|href)="(\/docs\/[^"]+)"/g)) {
        const part = await stack.get(path as string, { as: null });
        expect([path, part.status]).toEqual([path, 200]);
        expect(part.headers.get("content-type")).toMatch(/^text\/(css|javascript)/);
      }
    }
    const board = await stack.get("/admin/queues", { as: "admin" });
    expect(board.headers.get("content-security-policy")).toMatch(/script-src 'self';/);
    expect(board.headers.get("content-security-policy")).not.toMatch(/https?:/);
  });

  test("the document has exactly the allowed methods of each path", async () => {
    for (const [path, methods] of Object.entries<object>(document.paths)) {
      const answer = await stack.call("DELETE", path.replaceAll(/\{\w+\}/g, model), { as: "admin" });
      assertProblem(answer, 405, "method_not_allowed");
      const allowed = (answer.headers.get("allow") ?? "")
        .toLowerCase()
        .split(", ")
        .filter((method) => method !== "head");
      expect([path, allowed.sort()]).toEqual([
        path,
        Object.keys(methods)
          .filter((name) => name !== "parameters")
          .sort(),
      ]);
    }
  });

  test("each reference in it resolves, and each path parameter is declared", () => {
    const text = JSON.stringify(document);
    for (const [, pointer] of text.matchAll(/"\$ref":"#\/([^"]+)"/g)) {
      const target = (pointer as string).split("/").reduce((at, part) => at?.[part], document);
      expect([pointer, typeof target]).toEqual([pointer, "object"]);
    }
    expect(document.openapi).toMatch(/^3\.1\./);
    // biome-ignore lint/suspicious/noExplicitAny: parsed JSON
    for (const [path, item] of Object.entries<any>(document.paths)) {
      const declared = (item.parameters ?? []).map(({ name }: { name: string }) => name);
      expect([path, declared]).toEqual([path, [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)]);
    }
  });

  test("its submission is the validated one: documented fields are accepted, others are refused", async () => {
    const { properties } = document.components.schemas.Submission;
    const values: Record<string, unknown> = {
      input: flow(),
      version: "1",
      priority: 0,
      delay_ms: 0,
      expires_in_ms: 60_000,
      cache: false,
      metadata: {},
    };
    expect(Object.keys(properties).sort()).toEqual([...Object.keys(values), "webhook"].sort());
    expect((await stack.post(`/v1/models/${model}/predictions`, values)).status).toBe(202);
    expect(document.components.schemas.Submission.additionalProperties).toBe(false);
  });

  test("/docs shows every path of the document", async () => {
    const { body } = await stack.get("/docs", { as: null, headers: html });
    for (const path of Object.keys(document.paths)) expect(body).toContain(`<code>${path}</code>`);
  });

  test("pages of an allowed origin may call the API, those of others may not", async () => {
    const ask = (origin: string) =>
      stack.call("OPTIONS", `/v1/models/${model}/predictions`, {
        as: null,
        headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization" },
      });
    const allowed = await ask("https://app.example");
    expect([allowed.status, allowed.headers.get("access-control-allow-origin")]).toEqual([204, "https://app.example"]);
    expect(allowed.headers.get("access-control-allow-credentials")).toBeNull();
    expect((await ask("https://evil.example")).headers.get("access-control-allow-origin")).toBeNull();
    const answer = await stack.get("/v1/models", { headers: { origin: "https://app.example" } });
    expect(answer.headers.get("access-control-expose-headers")).toContain("RateLimit");
  });
});
