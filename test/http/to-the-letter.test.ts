import { once } from "node:events";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { sendRaw } from "../support/http/raw-http.js";
import { keys, TestStack } from "../support/stack/stack.js";

const path = "/v1/models/echo-float32/predictions";
const body = JSON.stringify({ input: { x: [[1, 2, 3]] }, cache: false });

describe("HTTP to the letter", () => {
  let stack: TestStack;
  const head = (...headers: string[]) =>
    [
      `POST ${path} HTTP/1.1`,
      "Host: a",
      `Authorization: Bearer ${keys.alice}`,
      "Content-Type: application/json",
      ...headers,
      "\r\n",
    ].join("\r\n");
  const chunk = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
  const problemOf = (text: string) => JSON.parse(text) as { code: string; detail: string };

  beforeAll(async () => {
    stack = await TestStack.start({
      models: ["echo-float32", "slow"],
      env: { WEBHOOK_SECRET: `whsec_${"c2Vj".repeat(8)}`, MAX_BODY_BYTES: "10000", MAX_TENSOR_BYTES: "20000" },
    });
  });
  afterAll(() => stack.close());

  test("a transfer coding before chunked is a 501, chunked twice a 400, and chunked is taken", async () => {
    for (const coding of ["gzip, chunked", "GZIP,chunked", "deflate, gzip, chunked", "identity, chunked"]) {
      const answer = await sendRaw(stack.url, `${head(`Transfer-Encoding: ${coding}`)}${chunk}`);
      expect([answer.status, problemOf(answer.body).code], coding).toEqual([501, "not_implemented"]);
      expect(answer.headers.get("connection")).toBe("close");
    }
    for (const coding of ["chunked, chunked", "chunked, gzip"]) {
      expect((await sendRaw(stack.url, `${head(`Transfer-Encoding: ${coding}`)}${chunk}`)).status, coding).toBe(400);
    }
    for (const coding of ["chunked", "Chunked", " chunked "])
      expect((await sendRaw(stack.url, `${head(`Transfer-Encoding: ${coding}`)}${chunk}`)).status, coding).toBe(202);
  });

  test("only a preference of its own waits; what is quoted or a parameter does not", async () => {
    const submit = (prefer: string) =>
      stack.post(
        "/v1/models/slow/predictions",
        { input: { x: [[300 + prefer.length]] }, cache: false },
        { headers: { prefer } },
      );
    for (const prefer of ['foo="a, wait=5"', "foo; wait=5", 'foo="\\", wait=5']) {
      const answer = await submit(prefer);
      expect([answer.status, answer.headers.get("preference-applied")], prefer).toEqual([202, null]);
    }
    const waited = await submit('foo="a, b", wait="20"');
    expect([waited.status, waited.headers.get("preference-applied")]).toEqual([200, "wait=20"]);
  });

  test.each([
    ["a body that is too large", () => head("Expect: 100-continue", "Content-Length: 10001"), 413],
    ["no key", () => head("Expect: 100-continue", "Content-Length: 10").replace(keys.alice, "nobody"), 401],
    ["another type", () => head("Expect: 100-continue", "Content-Length: 10").replace("/json", "/xml"), 415],
    ["no such path", () => head("Expect: 100-continue", "Content-Length: 10").replace("/predictions", "/none"), 404],
  ])(
    "a client that awaits 100 Continue gets the final status alone for %s, and the end",
    async (_what, bytes, status) => {
      const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
      let text = "";
      socket.on("data", (piece) => (text += piece));
      socket.write(bytes());
      await eventually(() => expect(text).toContain("\r\n\r\n{"));
      expect(text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
      expect(text).toMatch(/^connection: close\r$/im);
      await once(socket, "close");
    },
  );

  test("100 Continue is said when the body is wanted, once, and the body is then read", async () => {
    const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
    let text = "";
    socket.on("data", (piece) => (text += piece));
    // Two requests over one connection, the second without awaiting anything.
    for (const i of [1, 2]) {
      socket.write(head("Expect: 100-continue", `Content-Length: ${body.length}`));
      if (i === 1) await eventually(() => expect(text).toBe("HTTP/1.1 100 Continue\r\n\r\n"));
      socket.write(body);
      await eventually(() => expect(text.match(/HTTP\/1\.1 20[02] /g) ?? []).toHaveLength(i));
    }
    socket.destroy();
  });

  test("a body that is not packed as it says is told so, by its coding, on every way in", async () => {
    const send = async (at: string, type: string, coding: string, bytes: Buffer) => {
      const response = await fetch(`${stack.url}${at}`, {
        method: "POST",
        headers: { authorization: `Bearer ${keys.alice}`, "content-type": type, "content-encoding": coding },
        body: bytes as unknown as BodyInit,
      });
      return { status: response.status, headers: response.headers, body: await response.json() };
    };
    const batches = "/v1/models/echo-float32/batches";
    const ways = [
      [path, "application/json"],
      [batches, "application/json"],
      [batches, "application/x-ndjson"],
      ["/v2/models/echo-float32/infer", "application/json"],
    ] as const;
    for (const [at, type] of ways) {
      for (const coding of ["gzip", "deflate", "br"]) {
        const { detail } = assertProblem(await send(at, type, coding, Buffer.from(body)), 400, "malformed_body");
        expect(detail).toMatch(new RegExp(`not ${coding}, as its Content-Encoding says`));
      }
      const cut = gzipSync(Buffer.from(body)).subarray(0, 30);
      const { detail } = assertProblem(await send(at, type, "gzip", cut), 400, "malformed_body");
      expect(detail).toMatch(/ends before its gzip data do/);
    }
    const form = "multipart/form-data; boundary=x";
    const file = assertProblem(await send("/infer", form, "gzip", Buffer.from("x")), 400, "malformed_body");
    expect(file.detail).toContain("without Content-Encoding");
  });

  test("a long Accept is read to its end, at no more cost than a few ordinary requests", async () => {
    for (const accept of [`${"a/b,".repeat(3700)}application/json`, `${"x/y;q=0.5,".repeat(1500)}*/*`]) {
      const answer = await stack.get("/v1/models", { headers: { accept } });
      expect(answer.status).toBe(200);
    }
    const none = await stack.get("/v1/models", { headers: { accept: "a/b,".repeat(3700) } });
    assertProblem(none, 406, "not_acceptable");
  });

  test("webhooks to names of this machine are refused in every spelling, whatever the resolver says", async () => {
    const hosts = [
      ...["localhost", "localhost.", "localhost..", "LOCALHOST.", "a.localhost", "a.b.localhost.", "localhost6"],
      ...[
        "localhost.localdomain",
        "localhost.localdomain.",
        "localhost4.localdomain4",
        "ip6-localhost",
        "ip6-loopback.",
      ],
      ...["localhost\u3002", "localhost\uff0e", "localhost\uff61", "l\u24deocalhost", "%6cocalhost"],
    ];
    for (const host of hosts) {
      for (const port of ["", ":4443"]) {
        const webhook = { url: `https://${host}${port}/` };
        const answer = await stack.post(path, { input: { x: [[1, 2, 3]] }, webhook });
        assertProblem(answer, 422, "invalid_request");
      }
    }
  });
});
