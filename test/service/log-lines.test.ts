import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { LineLimiter, type LogEntry } from "@millrace/shared/service/line-limiter.js";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { root } from "../support/run/tools.js";

describe("log lines that come too fast", () => {
  const written: (LogEntry & { at: number })[] = [];
  beforeEach(() => {
    written.length = 0;
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });
  const open = () => {
    const write = (entry: LogEntry) => void written.push({ ...entry, at: performance.now() });
    const limiter = new LineLimiter(write);
    return (message: string, fields: object = {}) => {
      const entry = { level: "warn", message, ...fields };
      if (limiter.admit(entry)) write(entry);
    };
  };
  /** The most lines in any second. */
  const busiest = () => {
    const times = written.map(({ at }) => at);
    return Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + 1000).length));
  };

  test("are at most 50 a second, whatever is logged, and each is in a count", () => {
    const log = open();
    let sent = 0;
    for (let ms = 0; ms < 20_000; ms += 10) {
      for (let i = 0; i < 30; i++) log(`fault ${i % 7}`);
      sent += 30;
      vi.advanceTimersByTime(10);
    }
    vi.advanceTimersByTime(10_000);
    expect(busiest()).toBeLessThanOrEqual(50);
    const counted = written.reduce((sum, { count }) => sum + ((count as number | undefined) ?? 1), 0);
    expect(counted).toBe(sent);
  });

  test("of a thousand different messages are at most 50 a second as well", () => {
    const log = open();
    for (let ms = 0; ms < 5000; ms += 5) {
      log(`fault ${ms}`);
      vi.advanceTimersByTime(5);
    }
    expect(busiest()).toBeLessThanOrEqual(50);
  });

  test("do not hide a new message, and end with the fields of the last", () => {
    const log = open();
    for (let i = 0; i < 1000; i++) log("fault", { i });
    log("new");
    expect(written.at(-1)?.message).toBe("new");
    vi.advanceTimersByTime(1000);
    expect(written.at(-1)).toMatchObject({ message: "fault", i: 999 });
    expect(written.filter(({ count }) => count !== undefined)).toHaveLength(1);
  });

  test("of the audit are all written, and those of predictions are joined", { timeout: 60_000 }, async () => {
    vi.useRealTimers();
    const program = `
      import { logTogether, openLog } from "${root}/shared/dist/service/log.js";
      const log = openLog("test", "info");
      for (let i = 0; i < 200; i++) log.warn("key refused", { audit: true, i });
      for (let i = 0; i < 5000; i++) logTogether(log, "prediction finished")({ prediction_id: String(i) });
      for (let i = 0; i < 5000; i++) log.error("queue error", { i });
      setTimeout(() => undefined, 2500);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", 2] });
    const lines: LogEntry[] = [];
    for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream }))
      lines.push(JSON.parse(line));
    const of = (message: string) => lines.filter((line) => line.message === message);
    expect(of("key refused")).toHaveLength(200);
    expect(of("prediction finished").flatMap((line) => line.predictions)).toHaveLength(5000);
    expect(of("prediction finished").length).toBeLessThanOrEqual(12);
    expect(of("queue error").length).toBeLessThanOrEqual(20);
    expect(of("queue error").at(-1)).toMatchObject({ i: 4999 });
  });
});
