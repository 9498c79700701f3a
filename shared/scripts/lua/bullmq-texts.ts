import { addDelayedJob } from "bullmq/dist/cjs/scripts/addDelayedJob-6.js";
import { addStandardJob } from "bullmq/dist/cjs/scripts/addStandardJob-9.js";

/** BullMQ's own scripts, embedded in steps without changes, by the names for `-- include` in Lua files. */
export const bullmqTexts: Readonly<Record<string, string>> = {
  "bullmq/add-delayed-job": addDelayedJob.content,
  "bullmq/add-standard-job": addStandardJob.content,
};
