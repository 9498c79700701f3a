import { expect } from "vitest";
import { eventually } from "./eventually.js";
import type { CallOptions, Owner, TestStack } from "./stack/stack.js";

/** Fails for any row outside of -10 to 9. */
export const failing = "throws-on-row";

interface ListedPrediction {
  id: string;
  retry_of: string | null;
  created_at: string;
  finished_at: string;
  metadata: object;
}

/** Calls of one stack's failures and redrives. */
export function failuresOf(stack: () => TestStack) {
  const failures = async (query = "", options: CallOptions = {}) => {
    const answer = await stack().get(`/v1/failures${query && `?${query}`}`, options);
    expect(answer.status, JSON.stringify(answer.body)).toBe(200);
    return answer.body.data;
  };
  /** Makes `count` predictions fail; resolves once all of them have. */
  const fail = async (count: number, as: Owner = "alice", rest: Record<string, unknown> = {}): Promise<string[]> => {
    const ids: string[] = [];
    const caller = async () => {
      while (ids.length < count) {
        const place = ids.push("") - 1;
        // A submission refused while the API's event loop lags was not accepted, and is sent again.
        ids[place] = await eventually(async () => (await stack().submit(failing, { x: [[99]] }, rest, { as })).id);
      }
    };
    await Promise.all(Array.from({ length: 16 }, caller));
    await Promise.all(ids.slice(-20).map((id) => stack().final(id, { as })));
    return ids;
  };
  const redrive = async (body: object, options: CallOptions = {}) => {
    const answer = await stack().post("/v1/failures/redrive", body, options);
    expect(answer.status, JSON.stringify(answer.body)).toBe(202);
    expect(answer.headers.get("location")).toBe(`/v1/failures/redrives/${answer.body.id}`);
    expect(answer.body).toMatchObject({ object: "redrive", status: "queued", counts: { redriven: 0 } });
    return answer.body;
  };
  const ended = async (id: string, options: CallOptions = {}) =>
    eventually(async () => {
      const { body } = await stack().get(`/v1/failures/redrives/${id}?wait=20`, options);
      expect(body.status).not.toMatch(/queued|running/);
      return body;
    }, 60_000);
  const all = async (as: Owner = "alice", of = failing): Promise<ListedPrediction[]> => {
    const found: ListedPrediction[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const { body } = await stack().get(`/v1/predictions?model=${of}&limit=100${cursor && `&cursor=${cursor}`}`, {
        as,
      });
      found.push(...body.data);
      cursor = body.next_cursor;
    }
    return found;
  };
  /** The retries of these predictions. */
  const retriesOf = async (ids: readonly string[], as: Owner = "alice", of = failing) => {
    const wanted = new Set(ids);
    return (await all(as, of)).filter(({ retry_of: before }) => before !== null && wanted.has(before));
  };
  return { failures, fail, redrive, ended, retriesOf };
}
