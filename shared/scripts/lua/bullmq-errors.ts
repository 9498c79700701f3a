/** BullMQ's error codes in the answers of steps, by BullMQ's names; `test/queue/bullmq-names.test.ts` compares them. */
export const bullmqErrors = {
  JobNotExist: -1,
  JobLockNotExist: -2,
  JobNotInState: -3,
  JobLockMismatch: -6,
} as const;
