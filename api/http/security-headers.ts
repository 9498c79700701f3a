import type { RequestHandler } from "express";
import helmet from "helmet";

/**
 * Headers of every answer: it is not to be stored, sniffed for its type, framed, or run as a page. Helmet's other
 * headers are about pages, and are on those: see `pageHeaders`.
 */
export const answerHeaders: RequestHandler = (_request, response, next) => {
  response.setHeader("X-Content-Type-Options", "nosniff");
  response.setHeader("Cache-Control", "no-store");
  response.setHeader("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  next();
};

/**
 * Headers for pages, on which nothing runs but what this API serves. `inlineStyles` is for pages of others that cannot
 * do without; scripts never are inline.
 */
export function pageHeaders({ inlineStyles = false } = {}): RequestHandler {
  const own = ["'self'"];
  return helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        scriptSrc: own,
        scriptSrcAttr: ["'none'"],
        styleSrc: inlineStyles ? [...own, "'unsafe-inline'"] : own,
        imgSrc: [...own, "data:", "blob:"],
        fontSrc: own,
        connectSrc: own,
        manifestSrc: own,
        baseUri: own,
        formAction: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    crossOriginEmbedderPolicy: true,
    referrerPolicy: { policy: "no-referrer" },
    // Whether there is TLS is up to what stands in front, which also knows the name that it is for.
    strictTransportSecurity: false,
    xFrameOptions: { action: "deny" },
  }) as RequestHandler;
}

/** Lets pages of these origins call the API with a key; cookies are never taken, so none are allowed. */
export async function crossOrigin(origins: readonly string[]): Promise<RequestHandler> {
  // Loaded only where it is asked for.
  const { default: cors } = await import("cors");
  return cors({
    origin: [...origins],
    methods: ["GET", "HEAD", "POST", "PUT"],
    exposedHeaders: [
      "Idempotency-Replayed",
      "Location",
      "Preference-Applied",
      "RateLimit",
      "RateLimit-Policy",
      "Retry-After",
      "X-Request-Id",
    ],
    maxAge: 600,
  });
}
