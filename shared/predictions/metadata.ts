/**
 * A caller's metadata, which are returned as they were sent: JSON text without a changed number or string. A job has
 * them as an object, which earlier releases read, and as text only where `JSON.stringify` would change them.
 */
export interface JobMetadata {
  m?: Record<string, unknown> | undefined;
  mt?: string | undefined;
}

/** The fields of a job that hold metadata. */
export function metadataFields(text: string | undefined): JobMetadata {
  if (text === undefined) return {};
  const m = JSON.parse(text) as Record<string, unknown>;
  return JSON.stringify(m) === text ? { m } : { m, mt: text };
}

/** A job's metadata as JSON text. */
export const metadataText = ({ m, mt }: JobMetadata): string | undefined =>
  mt ?? (m === undefined ? undefined : JSON.stringify(m));
