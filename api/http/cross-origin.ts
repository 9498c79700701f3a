import cors from "cors";
import type { RequestHandler } from "express";

/** Lets pages of these origins call the API with a key; cookies are never taken, so none are allowed. */
export const crossOrigin = (origins: readonly string[]): RequestHandler =>
  cors({
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
