import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { flow } from "../support/stack/flows.js";
import { TestStack } from "../support/stack/stack.js";

const tree = "intrusion-decision-tree";
const cli = fileURLToPath(new URL("../../cli/dist/main.js", import.meta.url));

describe("the audit log", () => {
  let stack: TestStack;
  let dir: string;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "millrace-audit-"));
    stack = await TestStack.start({ models: [tree], apis: 2, env: { AUDIT_READS: "true" } });
    const { id } = await stack.submit(tree, flow(1));
    for (const { url } of stack.apis) {
      await stack.get("/v1/models", { url });
      await stack.get(`/v1/predictions/${id}`, { url, as: "admin" });
      await stack.get("/v1/models", { url, as: null, headers: { authorization: "Bearer 'no\u00e9\"key" } });
      await stack.post("/admin/keys", { owner: "made" }, { url, as: "admin" });
    }
    // One is started anew, which begins a chain of its own.
    await (stack.apis[0] as (typeof stack.apis)[0]).stop();
    await stack.startApi();
    await stack.get("/v1/models", { url: stack.apis[2]?.url as string });
    await eventually(() => expect(stack.logged("data read").length).toBeGreaterThanOrEqual(5));
  });
  afterAll(async () => {
    await stack.close();
    await rm(dir, { recursive: true });
  });

  const lines = () => stack.log.map((line) => JSON.stringify(line));
  const verify = async (text: readonly string[], ...options: string[]) => {
    const file = join(dir, "log");
    await writeFile(file, `${text.join("\n")}\n`);
    const run = promisify(execFile)(process.execPath, [cli, "audit", "verify", file, ...options]);
    return run.then(
      ({ stdout }) => ({ code: 0, stdout }),
      ({ code, stdout }: { code: number; stdout: string }) => ({ code, stdout }),
    );
  };
  /** The lines of the longest chain, by their indexes in the log. */
  const longestChain = (log: readonly string[]): number[] => {
    const chains = new Map<string, number[]>();
    log.forEach((text, i) => {
      const { audit, chain } = JSON.parse(text);
      if (audit === true) chains.set(chain, [...(chains.get(chain) ?? []), i]);
    });
    return [...chains.values()].sort((a, b) => b.length - a.length)[0] as number[];
  };

  test("with AUDIT_READS every read is on record, with who read what", async () => {
    expect(stack.logged("data read")).toContainEqual(
      expect.objectContaining({ audit: true, owner: "alice", method: "GET", path: "/v1/models", status: 200 }),
    );
    expect(stack.logged("other owner's data read")).toContainEqual(
      expect.objectContaining({ audit: true, owner: "admin", of: "alice", status: 200 }),
    );
  });

  test("the chains of several processes in one log hold, one for each start, with their ends", async () => {
    const { code, stdout } = await verify(lines());
    expect(stdout).toContain("3 chains hold");
    expect(code).toBe(0);
    expect(stdout.match(/; ended$/gm)).toHaveLength(1);
    const begun = stack.logged("audit begins");
    expect(begun).toHaveLength(3);
    for (const { chain } of begun) expect(Date.parse(String(chain).split("/")[0] as string)).not.toBeNaN();
  });

  test("members in another order, and lines of others in between, break no chain", async () => {
    const reordered = stack.log.flatMap((line) => [
      "a line that is no JSON",
      JSON.stringify(Object.fromEntries(Object.entries(line).reverse())),
    ]);
    expect((await verify(reordered)).code).toBe(0);
  });

  test.each<[string, (log: string[], at: number, chain: number[]) => void]>([
    ["changed in one letter", (log, at) => log.splice(at, 1, (log[at] as string).replace('"owner":"', '"owner":"x'))],
    ["taken away", (log, at) => log.splice(at, 1)],
    ["doubled", (log, at) => log.splice(at, 0, log[at] as string)],
    ["moved", (log, at, chain) => log.splice(chain.at(-1) as number, 0, ...log.splice(at, 1))],
    ["forged without a chain", (log, at) => log.splice(at, 0, JSON.stringify({ audit: true, message: "admin act" }))],
  ])("a line that was %s is noticed, and the first broken line is named", async (_what, change) => {
    const log = lines();
    const chain = longestChain(log);
    expect(chain.length).toBeGreaterThan(4);
    const at = chain.find((i, n) => n > 1 && log[i]?.includes('"owner":"')) as number;
    change(log, at, chain);
    const { code, stdout } = await verify(log);
    expect(stdout).toMatch(/line \d+: broken, because .+\.$/m);
    expect(code).toBe(1);
    // The line itself, or the next one of its chain.
    const named = Number(/line (\d+): broken/.exec(stdout)?.[1]) - 1;
    const later = chain.find((i) => i > at) as number;
    expect([at, at + 1, later - 1, later]).toContain(named);
  });

  test("lines cut off at the beginning are noticed, unless the file is said to be continued", async () => {
    const log = lines();
    const cut = log.slice((longestChain(log)[0] as number) + 1);
    expect((await verify(cut)).stdout).toMatch(/lines before it are missing/);
    expect((await verify(cut, "--continued")).code).toBe(0);
  });
});
