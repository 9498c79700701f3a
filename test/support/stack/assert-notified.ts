import { expect } from "vitest";
import type { TestStack } from "./stack.js";

const waitSeconds = 15;

/**
 * Returns the answer of `ask`, a wait of 20 s or more. Fails unless it comes before that of a control: a wait of 15 s,
 * begun first, for a prediction of the model that does not end.
 */
export async function assertNotified<T>(
  stack: TestStack,
  { model, input }: { model: string; input: unknown },
  ask: () => Promise<T>,
): Promise<T> {
  const { id } = await stack.submit(model, input, { delay_ms: 600_000 });
  let controlEnded = false;
  const atEnd = () => {
    controlEnded = true;
  };
  const control = stack.get(`/v1/predictions/${id}?wait=${waitSeconds}`).then(atEnd, atEnd);
  try {
    const answer = await ask();
    expect(controlEnded, "the control ended before the answer came").toBe(false);
    return answer;
  } finally {
    // While Redis is away the control ends by itself.
    await stack.post(`/v1/predictions/${id}/cancel`, {}).catch(() => undefined);
    await control;
  }
}
