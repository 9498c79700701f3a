import { refusalCode } from "@millrace/shared/redis/redis-faults.js";
import { describe, expect, test } from "vitest";

describe("the code of a command refused by Redis", () => {
  test.each([
    ["OOM command not allowed when used memory > 'maxmemory'.", "OOM"],
    ["OOM command not allowed when used memory > 'maxmemory'. script: 0e7f, on @user_script:27.", "OOM"],
    [
      "ERR Error running script (call to f_0e7f): @user_script:27: @user_script: 27: -OOM command not allowed when " +
        "used memory > 'maxmemory'.",
      "OOM",
    ],
    ["READONLY You can't write against a read only replica. script: 0e7f, on @user_script:3.", "READONLY"],
    ["CLUSTERDOWN The cluster is down", "CLUSTERDOWN"],
    ["NOREPLICAS Not enough good replicas to write.", "NOREPLICAS"],
  ])("%s", (message, code) => {
    expect(refusalCode(message)).toBe(code);
  });

  test.each([
    "ERR user_script:12: attempt to index a nil value script: 0e7f, on @user_script:12.",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR unknown command 'OOM'",
  ])("is null for a fault of our own: %s", (message) => {
    expect(refusalCode(message)).toBeNull();
  });
});
