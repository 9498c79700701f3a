import { bullKeys } from "@millrace/shared/redis/key-names.js";
import { bullmqErrors } from "@millrace/shared/scripts/lua/bullmq-errors.js";
import { ErrorCode, QueueKeys } from "bullmq";
import { expect, test } from "vitest";

test("error codes are BullMQ's", () => {
  for (const [name, code] of Object.entries(bullmqErrors))
    expect([name, ErrorCode[name as "JobNotExist"]]).toEqual([name, code]);
});

test("names of a queue's keys are BullMQ's", () => {
  const theirs = new QueueKeys("prefix").getKeys("queue");
  const { lock: _lock, ...names } = bullKeys;
  for (const name of Object.values(names)) expect(theirs[name]).toBe(`prefix:queue:${name}`);
});
