import { parseBody } from "@millrace/api/http/read-json.js";
import { expect, test } from "vitest";
import { z } from "zod";

test("a field that is left out is told as required, and one of another type by the type that is expected", () => {
  const schema = z.strictObject({ query: z.string(), mode: z.enum(["a", "b"]), either: z.union([z.int(), z.null()]) });
  const complaintsOf = (body: unknown) => {
    try {
      parseBody(schema, body);
    } catch (fault) {
      return (fault as { complaints: unknown }).complaints;
    }
    return [];
  };
  expect(complaintsOf({})).toEqual(
    ["/query", "/mode", "/either"].map((pointer) => ({ pointer, detail: "is required" })),
  );
  expect(complaintsOf({ query: 1, mode: "a", either: null })).toEqual([
    { pointer: "/query", detail: expect.stringContaining("expected string") },
  ]);
});
