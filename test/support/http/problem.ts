import { expect } from "vitest";
import type { Answer } from "../stack/stack.js";

/** Forbidden in any answer: a stack trace, a path of this machine, the address of Redis. */
const privateDetails =
  /node_modules|\bat \S+ \(|\.[jt]s:\d+|\/(?:work|tmp|home|usr|root)\/|127\.0\.0\.1|rediss?:\/\/|ECONN/i;

/** Asserts that an answer is a problem by RFC 9457 and the contract's section 8, and returns its body. */
// biome-ignore lint/suspicious/noExplicitAny: see Answer
export function assertProblem(answer: Answer, status: number, code: string): any {
  expect([answer.status, answer.body.code], JSON.stringify(answer.body)).toEqual([status, code]);
  expect(answer.headers.get("content-type")).toMatch(/^application\/problem\+json/);
  const { error, ...problem } = answer.body;
  // Clients of the Open Inference Protocol read `error`.
  if (error !== undefined) expect(error).toBe(problem.detail);
  expect(Object.keys(problem).sort()).toEqual(["code", "detail", "errors", "request_id", "status", "title", "type"]);
  expect(answer.body.status).toBe(status);
  expect(answer.body.title).not.toBe("");
  expect(answer.body.detail).not.toBe("");
  expect(answer.body.request_id).toBe(answer.headers.get("x-request-id"));
  expect(answer.body.request_id).not.toBe("");
  expect(JSON.stringify(answer.body)).not.toMatch(privateDetails);
  return answer.body;
}

/** The pointers of a problem's errors, sorted. */
export const pointersOf = (body: { errors: { pointer: string }[] }): string[] =>
  body.errors.map(({ pointer }) => pointer).sort();
