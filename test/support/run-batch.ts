import { expect } from "vitest";
import type { TestStack } from "./stack/stack.js";

/** One line of a batch's results. */
export interface ResultLine {
  index: number;
  status: string;
  // biome-ignore lint/suspicious/noExplicitAny: the shape depends on the model
  output: any;
  error: { code: string; detail: string } | null;
}

/** Runs inputs as one batch and returns their results in order, failed ones too. */
export async function runBatch(stack: TestStack, model: string, inputs: readonly unknown[]): Promise<ResultLine[]> {
  const accepted = await stack.post(`/v1/models/${model}/batches`, { inputs, cache: false });
  expect(accepted.status, JSON.stringify(accepted.body)).toBe(202);
  const { id } = accepted.body;
  for (let tries = 0; tries < 10; tries++) {
    const { body } = await stack.get(`/v1/batches/${id}?wait=30`);
    if (["succeeded", "partial", "failed"].includes(body.status)) break;
  }
  const { body, status } = await stack.get(`/v1/batches/${id}/results`, {
    headers: { accept: "application/x-ndjson" },
  });
  expect(status, JSON.stringify(body)).toBe(200);
  const lines = (typeof body === "string" ? body : JSON.stringify(body)).trimEnd().split("\n");
  expect(lines).toHaveLength(inputs.length);
  return lines.map((line) => JSON.parse(line) as ResultLine);
}
