import { createRequire } from "node:module";
import { acceptedEncoding, acceptedType, preferredWait, prefersAsync } from "@millrace/api/http/http-preferences.js";
import { describe, expect, test } from "vitest";
import { cpuMs } from "../support/cpu-ms.js";
import { random as seeded } from "../support/random.js";

type Asked = Parameters<typeof preferredWait>[0];
const asking = (headers: Record<string, string>) => ({ headers }) as unknown as Asked;

/** The package that Express asks, as the control: it answers the same, at a cost that grows with the square. */
const Negotiator = createRequire(import.meta.url)("negotiator") as new (
  request: object,
) => { mediaTypes(offered: string[]): string[]; encodings(offered: string[]): string[] };

describe("a Prefer header", () => {
  test.each<[string, string | undefined]>([
    ["wait=5", "5"],
    ['wait="5"', "5"],
    ['wait="\\5"', "5"],
    ["WAIT = 5", "5"],
    ["respond-async, wait=5", "5"],
    ["wait=5, wait=6", "5"],
    ["wait=5; foo=bar", "5"],
    ['foo="a;b,c\\"d", wait=7', "7"],
    ["wait=", ""],
    ['foo="a, wait=5"', undefined],
    ['foo="a\\", wait=5"', undefined],
    ['foo="never closed, wait=5', undefined],
    ["foo; wait=5", undefined],
    ['foo; bar="x, wait=5"', undefined],
    ["awaits=5", undefined],
    ["wait", undefined],
    ["", undefined],
  ])("of %s waits by RFC 7240", (prefer, wait) => {
    expect(preferredWait(asking({ prefer }))).toBe(wait);
  });

  test("asks for an answer at once only where that is a preference of its own", () => {
    for (const prefer of ["respond-async", "wait=1, Respond-Async", "respond-async; x=1"])
      expect(prefersAsync(asking({ prefer }))).toBe(true);
    for (const prefer of ['foo="a, respond-async"', "foo; respond-async", "respond-asynchronously"])
      expect(prefersAsync(asking({ prefer }))).toBe(false);
  });
});

describe("Accept", () => {
  const offered = ["application/json", "text/csv", "text/html"];
  const { below, pick } = seeded(7);
  const range = () =>
    pick(["*/*", "text/*", "application/*", "image/png", "text", "", ...offered, "TEXT/CSV"]) +
    pick(["", "", ";q=0", ";q=0.5", "; q=0.9", ";q=1", ";level=1", ';x="a,b"']);

  test("is read as Express reads it, on 5,000 made headers", () => {
    for (let i = 0; i < 5000; i++) {
      const ranges = Array.from({ length: 1 + below(5) }, range);
      const names = ranges.map((text) => text.split(";")[0]?.toLowerCase());
      // Of a type that is named twice, the first counts here and the last there.
      if (new Set(names).size < names.length) continue;
      const accept = ranges.join(pick([",", ", "]));
      const expected = new Negotiator({ headers: { accept } }).mediaTypes(offered)[0] ?? null;
      expect(acceptedType(asking({ accept }), offered), accept).toBe(expected);
    }
  });

  test("may say that JSON is UTF-8, which it always is", () => {
    for (const accept of ["application/json; charset=utf-8", 'application/json;charset="UTF-8";q=0.5'])
      expect(acceptedType(asking({ accept }), offered)).toBe("application/json");
    expect(acceptedType(asking({ accept: "application/json; charset=latin1" }), offered)).toBeNull();
  });

  test("of encodings is read as Express reads it, on 2,000 made headers", () => {
    const coding = () => pick(["gzip", "deflate", "br", "identity", "*"]) + pick(["", "", ";q=0", ";q=0.5", ";q=0.9"]);
    for (let i = 0; i < 2000; i++) {
      const codings = [...new Set(Array.from({ length: 1 + below(4) }, coding))];
      const names = codings.map((text) => text.split(";")[0]);
      if (new Set(names).size < names.length) continue;
      const header = codings.join(", ");
      const [best] = new Negotiator({ headers: { "accept-encoding": header } }).encodings([
        "gzip",
        "deflate",
        "identity",
      ]);
      const expected = best === "gzip" || best === "deflate" ? best : null;
      expect(acceptedEncoding(asking({ "accept-encoding": header }), ["gzip", "deflate"]), header).toBe(expected);
    }
  });

  test("costs about as much as it is long, whatever it says", () => {
    for (const part of [
      "a/b,",
      "*/*;q=0,",
      'a/b;x="\\",',
      ";,",
      "application/json;level=1,",
      ",",
      '"',
      "a/b; q = 1;",
    ]) {
      const cost = (bytes: number) => {
        const accept = part.repeat(bytes / part.length);
        return cpuMs(() => {
          acceptedType(asking({ accept }), offered);
          preferredWait(asking({ prefer: accept }));
          acceptedEncoding(asking({ "accept-encoding": accept }), ["gzip"]);
        });
      };
      // In turns, so that both meet the same machine.
      const rounds = Array.from({ length: 10 }, () => ({ short: cost(25_000), long: cost(400_000) }));
      const short = Math.min(...rounds.map((round) => round.short));
      const long = Math.min(...rounds.map((round) => round.long));
      // 16 times the length; a cost that grew with the square would be 256 times as much.
      expect(long, JSON.stringify(part)).toBeLessThan(64 * short + 1);
    }
  });
});
