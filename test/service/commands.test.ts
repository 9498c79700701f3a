import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describeLine } from "@millrace/cli/start-stack.js";
import { trialCommand } from "@millrace/cli/trial.js";
import { describe, expect, test } from "vitest";

const program = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));

/** Runs the command line with only these environment variables of ours. */
const runWith = (env: Record<string, string>, ...args: string[]) =>
  new Promise<{ code: number; errors: string }>((resolve) => {
    const options = { env: { PATH: process.env.PATH, ...env } };
    execFile(process.execPath, [program, ...args], options, (fault, _output, errors) =>
      resolve({ code: fault === null ? 0 : Number(fault.code), errors }),
    );
  });
const run = (...args: string[]) => runWith({}, ...args);

describe("the command line", () => {
  test.each([
    ["an unknown command", ["nonsense"], "unknown command nonsense"],
    ["an unknown option of start", ["start", "--fast"], "Unknown option '--fast'"],
    ["an unexpected argument of start", ["start", "now"], "unexpected argument now"],
    ["a demo without a URL", ["demo"], "demo needs the URL"],
    ["keys without an action", ["keys"], "keys needs list"],
    ["an option of keys without its value", ["keys", "make", "a", "--scopes"], "'--scopes <value>'"],
    ["a signature without a key", ["models", "sign", "models/x"], "sign <folder> --key <file>"],
    ["models without a path", ["models", "sign"], "models needs one file or folder"],
  ])("reports %s with the usage, and ends with 2", async (_what, args, says) => {
    const { code, errors } = await run(...args);
    expect([code, errors]).toEqual([2, expect.stringContaining(says)]);
    expect(errors).toContain("usage: npm run cli -- <command>");
  });

  test("names the setting or file that is wrong", async () => {
    const { errors: address } = await runWith({ REDIS_URL: "foo" }, "keys", "list");
    expect(address).toMatch(/^REDIS_URL must look like redis:/);
    const { errors: file } = await run("models", "sign", "models/x", "--key", "/nope");
    expect(file).toBe("Cannot read the key file /nope: it does not exist.\n");
  });

  test("shows a warning of a service with its cause, on one line", () => {
    const refused = {
      level: "error",
      message: "model cannot be served",
      model: "m",
      version: "1",
      reason: "no\n  graph",
    };
    expect(describeLine(refused)).toBe("model cannot be served, model: m, version: 1, reason: no graph");
    const failed = { level: "warn", message: "queue error", error: { message: "away", stack: "at x" } };
    expect(describeLine(failed)).toBe("queue error, error: away");
  });

  test("prints a curl line that a shell takes as it is", () => {
    const line = trialCommand({ apiUrl: "http://a", apiKey: null }, { model: "m", input: "it's" });
    expect(line).toContain(`-H "Authorization: Bearer $API_KEY"`);
    expect(line).toContain(String.raw`-d '{"input":"it'\''s"}'`);
  });

  test("shows its usage on request, and ends with 0", async () => {
    for (const args of [[], ["help"], ["--help"]]) {
      const { code, errors } = await run(...args);
      expect([code, errors]).toEqual([0, expect.stringMatching(/^usage: npm run cli -- <command>/)]);
    }
  });
});
