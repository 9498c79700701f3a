import { z } from "zod";
import type { Operations } from "../http/operation.js";

const serviceSchema = z
  .object({
    name: z.string(),
    object: z.literal("service"),
    version: z.string(),
    api: z.string(),
    urls: z.record(z.string(), z.string()),
  })
  .meta({ id: "Service" });

/** The operations of `routes/pages.ts`. */
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
