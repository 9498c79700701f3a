/**
 * BullMQ's error codes that steps answer with, by its own names; `test/queue/bullmq-names.test.ts` holds them against
 * it.
 */
export const bullmqErrors = {
  JobNotExist: -1,
  JobLockNotExist: -2,
  JobNotInState: -3,
  JobLockMismatch: -6,
} as const;
