import { type FailureCode, failureCodes } from "../service/failure-codes.js";
import type { StoredResult } from "./prediction.js";
import { rawMember } from "./raw-member.js";
import type { ResponseForm } from "./response-form.js";

/**
 * The parts of an ended prediction that its retry takes over: neither priority nor expiry nor webhooks, which were of
 * that time.
 */
export interface Retryable {
  /** A tensor pack in base64; empty where it is a blob of so many bytes under the ended prediction's id. */
  input: string;
  bytes: number | undefined;
  rows: number;
  form: ResponseForm | undefined;
  version: string;
  /** JSON text, as the caller wrote it. */
  metadata: string;
  /** Its code among its owner's failures; null where it did not fail. */
  failure: FailureCode | null;
}

/** The retryable parts of a final prediction; null for one that succeeded. */
export function retryableOf({ form, input, inputBytes, inputRows, json, status }: StoredResult): Retryable | null {
  if (status === "succeeded" || input === undefined) return null;
  const { error, version } = JSON.parse(json) as { error: { code: string } | null; version: string };
  const metadata = rawMember(Buffer.from(json), "metadata") ?? "{}";
  const failure = status === "failed" ? failureCodes.find((code) => code === error?.code) : undefined;
  return { input, bytes: inputBytes, rows: inputRows ?? 1, form, version, metadata, failure: failure ?? null };
}
