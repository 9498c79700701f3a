import type { Scope } from "@millrace/shared/access/api-keys.js";
import { z } from "zod";

/** Schemas by media type, or that of JSON. */
export type Content = z.ZodType | Readonly<Record<string, z.ZodType>>;

/** A parameter that is not part of the path. */
export interface Parameter {
  name: string;
  in: "query" | "header";
  schema: z.ZodType;
  description: string;
}

/** One method of a path, as the OpenAPI document tells it. */
export interface Operation {
  summary: string;
  /** The scope that a key must have, or one of them; null: no key is asked for. */
  scope: Scope | readonly Scope[] | null;
  parameters?: readonly Parameter[];
  body?: Content;
  /** The body may be left out. */
  bodyOptional?: true;
  /** By status: what is answered, and in which form. Problems are told of every operation. */
  answers: Readonly<Record<number, readonly [description: string, content?: Content]>>;
}

/** Operations by path and method; a path's parameters stand in braces. */
export type Operations = Readonly<Record<string, Partial<Record<"get" | "post" | "put", Operation>>>>;

/** A parameter of the query. */
export const query = (name: string, schema: z.ZodType, description: string): Parameter => ({
  name,
  in: "query",
  schema,
  description,
});
/** A request header. */
export const header = (name: string, description: string): Parameter => ({
  name,
  in: "header",
  schema: z.string(),
  description,
});

/** RFC 3339, UTC, with milliseconds. */
export const timeSchema = z.string().meta({ format: "date-time" });
export const whole = (min: number, max?: number) => (max === undefined ? z.int().min(min) : z.int().min(min).max(max));

/** A page of a listing, newest first. */
export const pageOf = <T extends z.ZodType>(item: T, id: string) =>
  z.object({ data: z.array(item), next_cursor: z.string().nullable() }).meta({ id });

/** A listing that is told at once. */
export const listOf = <T extends z.ZodType>(item: T, id: string) => z.object({ data: z.array(item) }).meta({ id });

/** Waits for the end. */
export const waitParameter = query("wait", whole(0, 60), "Wait up to N seconds (0 to 60) for the final state");
/** Lists the data of another owner. */
export const ownerParameter = query("owner", z.string(), "Of that owner instead of your own; with the scope `inspect`");
/** The query of a listing. */
export const listParameters = (statuses: readonly [string, ...string[]]) => [
  ownerParameter,
  query("model", z.string(), "Only of this model"),
  query("status", z.enum(statuses), "Only in this state"),
  query("limit", whole(1, 100), "Entries of a page; default 20"),
  query("cursor", z.string(), "`next_cursor` of the page before"),
];
/** Makes repeating a submission safe. */
export const idempotencyParameter = header(
  "Idempotency-Key",
  "The same key and body are answered as the first time, for a day and within a model; another body is refused. The " +
    "order of members in JSON does not matter; NDJSON and CSV are compared by their bytes",
);
/** Goes on with a stream of events. */
export const lastEventParameter = header("Last-Event-ID", "The id of the last event that was seen");
export const eventAnswers: Operation["answers"] = {
  200: ["Events `status` until it is final", { "text/event-stream": z.string() }],
  204: ["The final state was seen"],
};

/** A problem of RFC 9457. */
export const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string().meta({ description: "Stable, for programs" }),
    request_id: z.string(),
    errors: z
      .array(z.object({ detail: z.string(), pointer: z.string() }))
      .meta({ description: "Everything that is wrong, each with a JSON pointer into the body" }),
    error: z.string().optional().meta({ description: "`detail`, for clients of the Open Inference Protocol" }),
  })
  .meta({ id: "Problem", description: "RFC 9457" });
