import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const program = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));

/** Runs the command line without this machine's environment variables. */
const run = (...args: string[]) =>
  new Promise<{ code: number; errors: string }>((resolve) => {
    execFile(process.execPath, [program, ...args], { env: { PATH: process.env.PATH } }, (fault, _output, errors) =>
      resolve({ code: fault === null ? 0 : Number(fault.code), errors }),
    );
  });

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
    expect(errors).toContain("usage: millrace <command>");
  });

  test("shows its usage on request, and ends with 0", async () => {
    for (const args of [[], ["help"], ["--help"]]) {
      const { code, errors } = await run(...args);
      expect([code, errors]).toEqual([0, expect.stringMatching(/^usage: millrace <command>/)]);
    }
  });
});
