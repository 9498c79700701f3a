import { delayedScorePerMs } from "@millrace/shared/predictions/job.js";
import { bullKeys } from "@millrace/shared/redis/key-names.js";
import { bullmqErrors } from "@millrace/shared/scripts/lua/lua-constants.js";
import { bullmqTexts } from "@millrace/shared/scripts/lua/lua-text.js";
import { ErrorCode, QueueKeys } from "bullmq";
import { expect, test } from "vitest";

test("error codes are BullMQ's", () => {
  for (const [name, code] of Object.entries(bullmqErrors))
    expect([name, ErrorCode[name as "JobNotExist"]]).toEqual([name, code]);
});

test("the score of a delayed job is BullMQ's", () => {
  const script = bullmqTexts["bullmq/add-delayed-job"] as string;
  const factors = [...script.matchAll(/timestamp(?: \+ 1 ?\))? [*/] (0x[0-9a-f]+)/gi)].map(([, factor]) =>
    Number(factor),
  );
  expect(factors.length).toBeGreaterThan(2);
  expect([...new Set(factors)]).toEqual([delayedScorePerMs]);
});

test("names of a queue's keys are BullMQ's", () => {
  const theirs = new QueueKeys("prefix").getKeys("queue");
  const { lock: _lock, ...names } = bullKeys;
  for (const name of Object.values(names)) expect(theirs[name]).toBe(`prefix:queue:${name}`);
});
