import { keys } from "../support/stack/stack.js";
import { batchPath, type HostileRow, lines, submitPath } from "./request.js";

const key = `Authorization: Bearer ${keys.alice}`;
const post = (...headers: string[]) => [
  `POST ${submitPath} HTTP/1.1`,
  "Host: a",
  key,
  "Content-Type: application/json",
  ...headers,
];
const upload = (...headers: string[]) => [
  `POST ${batchPath} HTTP/1.1`,
  "Host: a",
  key,
  "Content-Type: application/x-ndjson",
  ...headers,
];
const chunked = (body: string, ...headers: string[]) =>
  `${lines(...post("Transfer-Encoding: chunked", ...headers))}${body}`;
/** An upload of lines that takes longer than other bodies may. */
const slowUpload = (path: string): HostileRow => {
  const head = upload("Transfer-Encoding: chunked");
  const pieces = [...Array(11).fill("2\r\n1\n\r\n"), "0\r\n\r\n"];
  const first = lines(`POST ${path} HTTP/1.1`, ...head.slice(1));
  return [`lines of a second each, to ${path}`, first, 202, { drip: { pieces, everyMs: 1000 } }];
};
const smuggled = lines("GET /admin/queues HTTP/1.1", "Host: a");

/** Malformed HTTP, and HTTP that two parsers may read differently (request smuggling). */
export const protocolRows: HostileRow[] = [
  ["no HTTP", "hello\r\n\r\n", 400],
  ["TLS to a plain port", Buffer.from("16030100c8010000c40303", "hex"), 400],
  ["NULs", Buffer.alloc(512), 400],
  ["bytes at random", Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 167 + 13) % 256)), 400],
  ["a Redis command", "*1\r\n$8\r\nFLUSHALL\r\n", 400],
  ["the begin of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
  ["HTTP/0.9", "GET /health\r\n\r\n", 400],
  ["HTTP/9.9", lines("GET /health HTTP/9.9", "Host: a"), 400],
  ["HTTP/1.2", lines("GET /health HTTP/1.2", "Host: a"), 400],
  ["http in small letters", lines("GET /health http/1.1", "Host: a"), 400],
  ["HTTP/1.0 without a host", lines("GET /health HTTP/1.0"), 200],
  ["HTTP/1.1 without a host", lines("GET /health HTTP/1.1"), 400],
  ["two hosts", lines("GET /health HTTP/1.1", "Host: a", "Host: b"), 400],
  ["the same host twice", lines("GET /health HTTP/1.1", "Host: a", "host: a"), 400],
  ["an unknown method", lines("HACK /health HTTP/1.1", "Host: a"), 400],
  ["a method in small letters", lines("get /health HTTP/1.1", "Host: a"), 400],
  ["a method of 10 KB", lines(`${"A".repeat(10_000)} / HTTP/1.1`, "Host: a"), 400],
  ["CONNECT", lines("CONNECT 127.0.0.1:6379 HTTP/1.1", "Host: a"), 405],
  ["a target without a slash", lines("GET health HTTP/1.1", "Host: a"), 400],
  ["two spaces in the request line", lines("GET  /health HTTP/1.1", "Host: a"), 200],
  ["a target with a space", lines("GET /he alth HTTP/1.1", "Host: a"), 400],
  ["a target of 40 KB", lines(`GET /${"a".repeat(40_000)} HTTP/1.1`, "Host: a"), 431],
  ["bare line feeds", "GET /health HTTP/1.1\nHost: a\n\n", 400],
  ["bare carriage returns", "GET /health HTTP/1.1\rHost: a\r\r", 400],
  ["a header without a colon", lines("GET /health HTTP/1.1", "Host: a", "nothing"), 400],
  ["a header without a name", lines("GET /health HTTP/1.1", "Host: a", ": x"), 400],
  ["a space before the colon", lines("GET /health HTTP/1.1", "Host: a", "Content-Length : 5"), 400],
  ["a folded header", lines("GET /health HTTP/1.1", "Host: a", "X-A: b", " c"), 400],
  ["a NUL in a header", lines("GET /health HTTP/1.1", "Host: a", "X-A: \0"), 400],
  ["a bare line feed in a header", lines("GET /health HTTP/1.1", "Host: a", "X-A: b\nX-B: c"), 400],
  ["a bare carriage return in a header", lines("GET /health HTTP/1.1", "Host: a", "X-A: b\rX-B: c"), 400],
  ["a space in a header's name", lines("GET /health HTTP/1.1", "Host: a", "X A: b"), 400],
  ["a header of 40 KB", lines("GET /health HTTP/1.1", "Host: a", `X-A: ${"b".repeat(40_000)}`), 431],
  ["a header's name of 40 KB", lines("GET /health HTTP/1.1", "Host: a", `${"b".repeat(40_000)}: x`), 431],
  ["101 headers", lines("GET /health HTTP/1.1", ...Array.from({ length: 101 }, (_, i) => `X-${i}: x`), "Host: a"), 431],
  ["3,000 headers", lines("GET /health HTTP/1.1", "Host: a", ...Array(3000).fill("a: b")), 431],
  ["headers without end", lines("GET /health HTTP/1.1", "Host: a", ...Array(20_000).fill("X-A: b")), 431],
  ["both lengths, CL.TE", `${lines(...post("Content-Length: 6", "Transfer-Encoding: chunked"))}0\r\n\r\nG`, 400],
  [
    "both lengths, TE.CL",
    `${lines(...post("Transfer-Encoding: chunked", "Content-Length: 3"))}1\r\na\r\n0\r\n\r\n`,
    400,
  ],
  ["two lengths", `${lines(...post("Content-Length: 2", "Content-Length: 3"))}{}x`, 400],
  ["the same length twice", `${lines(...post("Content-Length: 2", "Content-Length: 2"))}{}`, 400],
  ["two lengths in one", `${lines(...post("Content-Length: 2, 2"))}{}`, 400],
  ["a length of -1", `${lines(...post("Content-Length: -1"))}{}`, 400],
  ["a length of +2", `${lines(...post("Content-Length: +2"))}{}`, 400],
  ["a length in hexadecimal", `${lines(...post("Content-Length: 0x2"))}{}`, 400],
  ["a length with a point", `${lines(...post("Content-Length: 2.0"))}{}`, 400],
  ["a length of words", `${lines(...post("Content-Length: two"))}{}`, 400],
  ["an empty length", `${lines(...post("Content-Length:"))}{}`, 400],
  ["a length that overflows", lines(...post("Content-Length: 18446744073709551617")), 400],
  ["a length of 1 TB", lines(...post("Content-Length: 1099511627776")), 413],
  ["a batch of 1 PB", lines(...upload("Content-Length: 1125899906842624")), 413],
  [
    "a body with a length in a GET, which smuggles a request",
    `${lines("GET /health HTTP/1.1", "Host: a", `Content-Length: ${smuggled.length}`)}${smuggled}`,
    200,
  ],
  ["Transfer-Encoding: gzip", `${lines(...post("Transfer-Encoding: gzip"))}x`, 400],
  ["Transfer-Encoding: gzip, chunked", `${lines(...post("Transfer-Encoding: gzip, chunked"))}0\r\n\r\n`, 501],
  ["Transfer-Encoding: identity", `${lines(...post("Transfer-Encoding: identity"))}{}`, 400],
  ["Transfer-Encoding: xchunked", `${lines(...post("Transfer-Encoding: xchunked"))}0\r\n\r\n`, 400],
  ["Transfer-Encoding: chunked, identity", `${lines(...post("Transfer-Encoding: chunked, identity"))}0\r\n\r\n`, 400],
  ["chunked, and before it a tab", `${lines(...post("Transfer-Encoding:\x0bchunked"))}0\r\n\r\n`, 400],
  ["chunked in two headers", `${lines(...post("Transfer-Encoding: chunked", "Transfer-Encoding: cow"))}0\r\n\r\n`, 400],
  ["a chunk size of words", chunked("zz\r\n{}\r\n0\r\n\r\n"), 400],
  ["a negative chunk size", chunked("-2\r\n{}\r\n0\r\n\r\n"), 400],
  ["a chunk size that overflows", chunked("fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), 400],
  ["a chunk size with 0x", chunked("0x2\r\n{}\r\n0\r\n\r\n"), 400],
  ["an empty chunk size", chunked("\r\n{}\r\n0\r\n\r\n"), 400],
  ["a chunk that is longer than it says", chunked("2\r\n{}{}{}\r\n0\r\n\r\n"), 400],
  ["a chunk that ends in a bare line feed", chunked("2\n{}\n0\n\n"), 400],
  ["20 KB of chunk extensions", chunked(`2;${"a".repeat(20_000)}\r\n{}\r\n0\r\n\r\n`), 413],
  ["trailers of 40 KB", chunked(`2\r\n{}\r\n0\r\nX-A: ${"b".repeat(40_000)}\r\n\r\n`), 431],
  ["chunks of one byte, too many of them", chunked("1\r\na\r\n".repeat(100_000)), 400],
  ["a body that ends early", `${lines(...post("Content-Length: 100"))}{"inp`, 400, { halfClose: true }],
  ["a batch that ends early", `${lines(...upload("Content-Length: 100"))}[1`, 400, { halfClose: true }],
  [
    "a chunked batch that ends early",
    `${lines(...upload("Transfer-Encoding: chunked"))}5\r\n[1,2,\r\n`,
    400,
    { halfClose: true },
  ],
  [
    "an upgrade to a WebSocket",
    lines(
      "GET /v1/models HTTP/1.1",
      "Host: a",
      key,
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ),
    200,
  ],
  [
    "Expect: 100-continue and too large a body",
    lines(...post("Expect: 100-continue", "Content-Length: 99999999")),
    413,
  ],
];

/** Slow requests, each with its own deadline. */
export const slowRows: HostileRow[] = [
  ["a silent connection", "", 408],
  ["a request line that never ends", "GET /health HT", 408],
  ["headers that never end", "GET /health HTTP/1.1\r\nHost: a\r\nX-A: b\r\n", 408],
  [
    "headers of a byte a second",
    "GET /health HTTP/1.1\r\nHost: a\r\n",
    408,
    { drip: { pieces: Array(40).fill("X"), everyMs: 1000 } },
  ],
  ["a body that never comes", lines(...post("Content-Length: 10")), 408],
  [
    "a body of a byte a second",
    lines(...post("Content-Length: 1000")),
    408,
    { drip: { pieces: Array(40).fill("["), everyMs: 1000 } },
  ],
  [
    "chunks of a byte a second",
    lines(...post("Transfer-Encoding: chunked")),
    408,
    { drip: { pieces: Array(40).fill("1\r\n[\r\n"), everyMs: 1000 } },
  ],
  slowUpload(batchPath),
  slowUpload(`${batchPath}/`),
  ["gzip that never comes", lines(...post("Content-Encoding: gzip", "Content-Length: 100")), 408],
];
