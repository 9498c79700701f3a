import type { Caller } from "../access/key-ring.js";

declare global {
  namespace Express {
    /** All that the handlers of one request hand on to those after them. */
    interface Locals {
      /** The caller's `X-Request-Id`, or one of our own; of every request. */
      requestId: string;
      /** The caller, behind `requireScope` only. */
      caller: Caller;
      /** Problems are told in the form of the Open Inference Protocol. */
      openInference?: boolean;
      /** Lets the body come later than the deadline. */
      stopBodyDeadline?: () => void;
      /** The limits that the answer tells of, by name. */
      rateLimits?: Map<string, { policy: string; state: string }>;
      /** The `metadata` of a submission, as JSON text. */
      rawMetadata?: string | undefined;
    }
  }
}
