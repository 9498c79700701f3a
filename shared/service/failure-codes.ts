/**
 * Why a prediction can end as failed. A closed list, because failures are kept by it: no owner can make a code of their
 * own.
 */
export const failureCodes = [
  "inference_failed",
  "invalid_input",
  "timeout",
  "out_of_memory",
  "poisoned",
  "version_gone",
  "input_lost",
] as const;

export type FailureCode = (typeof failureCodes)[number];
