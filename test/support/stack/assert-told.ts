import { expect } from "vitest";
import type { TestStack } from "./stack.js";

const waitSeconds = 20;

/**
 * Asks, and holds that the answer comes before that to a control: a wait of 20 s, begun first, for a prediction of the
 * model that nothing ends. For waits of 20 s or more, which must end by a notice.
 */
export async function assertTold<T>(
  stack: TestStack,
  { model, input }: { model: string; input: unknown },
  ask: () => Promise<T>,
): Promise<T> {
  const { id } = await stack.submit(model, input, { delay_ms: 600_000 });
  let controlEnded = false;
  const control = stack.get(`/v1/predictions/${id}?wait=${waitSeconds}`).finally(() => {
    controlEnded = true;
  });
  try {
    const answer = await ask();
    expect(controlEnded, "the control ended before the answer came").toBe(false);
    return answer;
  } finally {
    await stack.post(`/v1/predictions/${id}/cancel`, {});
    await control;
  }
}
