import { predictionJobSchema } from "@millrace/shared/predictions/job.js";
import { metadataFields, metadataText } from "@millrace/shared/predictions/metadata.js";
import { compactJson, rawMember } from "@millrace/shared/predictions/raw-member.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { finalBatch, submitBatch, types } from "../support/batches.js";
import { eventually } from "../support/eventually.js";
import { assertProblem } from "../support/http/problem.js";
import { Receiver, secretOf } from "../support/http/receiver.js";
import { random } from "../support/random.js";
import { keys, TestStack } from "../support/stack/stack.js";

/** Metadata as sent, and as returned if that differs in the space between tokens. */
const written: [sent: string, back?: string][] = [
  ['{"a":1,"b":[true,null,"x"]}'],
  ['{"id":12345678901234567890,"small":9007199254740993}'],
  ['{"a":1.0,"b":1e2,"c":0.10,"d":-0.0,"e":1E+2,"f":1e400,"g":1.00000000000000000001}'],
  ['{"10":1,"2":2,"a":3,"1":4}'],
  ['{"a":"\\u00e9\\/\\u2028","b":"é/","\\u0061b":"\\ud83d\\ude00"}'],
  ['{"__proto__":1,"constructor":{"__proto__":2.50}}'],
  ['{"a":"  two  spaces  ","b":"\\"quoted\\" , : {"}'],
  ['{ "a" : [ 1.0 ,\t2 ] ,\r\n "b" : { } }', '{"a":[1.0,2],"b":{}}'],
  ["{}"],
];

const textIn = (json: string): string | undefined => rawMember(Buffer.from(json), "metadata");

describe("a member of JSON", () => {
  test("is found with its exact text, in any object, 5,000 at random", () => {
    const r = random(51);
    const space = () => r.pick(["", "", " ", "\n\t"]);
    const value = (depth: number): string => {
      const kind = r.below(depth > 2 ? 4 : 6);
      if (kind < 2) return r.pick(["1.0", "-1e5", "12345678901234567890", "null", "true"]);
      if (kind < 4) return r.pick(['"m"', '"\\\\"', '"\\"m\\":1,"', '"}],"', '""', '"é\\u0022"']);
      const inner = Array.from({ length: r.below(3) }, () => value(depth + 1));
      if (kind === 4) return `[${inner.map((text) => space() + text + space()).join(",")}]`;
      return `{${inner.map((text, i) => `${space()}"m${i || ""}"${space()}:${space()}${text}`).join(",")}${space()}}`;
    };
    for (let round = 0; round < 5000; round++) {
      const names = ["a", "m", "x y", "k\\u0065y"].filter(() => r.below(3) > 0).sort(() => r.unit() - 0.5);
      const members = names.map((name) => [name, value(0)] as const);
      const json = `${space()}{${members.map(([name, text]) => `${space()}"${name}"${space()}:${text}${space()}`)}}`;
      const parsed = JSON.parse(json);
      for (const name of ["m", "key", "none"]) {
        const raw = rawMember(Buffer.from(json), name);
        if (!Object.hasOwn(parsed, name)) expect(raw, json).toBeUndefined();
        else {
          const [, text] = members.find(([written]) => JSON.parse(`"${written}"`) === name) as [string, string];
          expect(raw?.trim(), json).toBe(text);
          expect(JSON.parse(compactJson(raw as string)), json).toEqual(parsed[name]);
          expect(compactJson(raw as string).replaceAll(/"(?:[^"\\]|\\.)*"/g, ""), json).not.toMatch(/\s/);
        }
      }
    }
  });
});

describe("a job's metadata", () => {
  const job = { v: 1, o: "alice", ver: "1", x: "" } as const;

  test("are the sent text, and an object for the previous release", () => {
    for (const [sent, back = sent] of written) {
      const text = compactJson(sent);
      const data = JSON.parse(JSON.stringify({ ...job, ...metadataFields(text) }));
      expect(metadataText(predictionJobSchema.parse(data))).toBe(back);
      expect(typeof data.m).toBe("object");
    }
    expect(metadataFields(undefined)).toEqual({});
  });

  test("of the previous release are still readable", () => {
    expect(metadataText(predictionJobSchema.parse({ ...job, m: { a: 1 } }))).toBe('{"a":1}');
    expect(metadataText(predictionJobSchema.parse(job))).toBeUndefined();
  });

  test("are stored once if their text equals that of JSON.stringify", () => {
    expect(metadataFields('{"a":1}')).toEqual({ m: { a: 1 } });
  });
});

describe("metadata are returned with every number and string in its exact text", () => {
  let stack: TestStack;
  let receiver: Receiver;
  const path = "/v1/models/throws-on-row/predictions";

  beforeAll(async () => {
    receiver = await Receiver.start();
    stack = await TestStack.start({
      models: ["throws-on-row"],
      manifests: { "throws-on-row": { kind: "tensor", attempts: 1, batching: { max_batch_rows: 1 } } },
      env: { WEBHOOK_SECRET: secretOf(3), WEBHOOK_ALLOW_HOSTS: "127.0.0.1" },
    });
  });
  afterAll(async () => {
    await stack?.close();
    await receiver?.close();
  });

  /** The unparsed text of an answer. */
  async function raw(method: string, to: string, body?: string, more: Record<string, string> = {}) {
    const headers = { authorization: `Bearer ${keys.alice}`, "content-type": types.json, ...more };
    const response = await fetch(`${stack.url}${to}`, { method, headers, ...(body !== undefined && { body }) });
    return { status: response.status, text: await response.text() };
  }
  const idIn = (text: string): string => JSON.parse(text).id;

  test.each(written)(
    "of a prediction, in its first and final state, lists, events, webhooks and from the cache: %s",
    async (sent, back = sent) => {
      const hook = `/hook-${Math.abs(written.findIndex(([text]) => text === sent))}`;
      const body = (cache: boolean, webhook: string) =>
        `{"metadata":${sent},"input":{"x":[[5]]},"cache":${cache},"webhook":{"url":"${receiver.url(webhook)}"}}`;
      const accepted = await raw("POST", path, body(false, hook));
      expect(accepted.status).toBe(202);
      const id = idIn(accepted.text);
      await stack.final(id);
      const final = await raw("GET", `/v1/predictions/${id}`);
      const [hooked] = await receiver.received(hook);
      const events = (await raw("GET", `/v1/predictions/${id}/events`)).text.trimEnd().split("data: ").at(-1) as string;
      const list = (await raw("GET", "/v1/predictions?limit=1")).text;
      await raw("POST", path, body(true, `${hook}-first`), { prefer: "wait=20" });
      const cached = await raw("POST", path, body(true, `${hook}-cached`), { prefer: "wait=20" });
      expect(JSON.parse(cached.text)).toMatchObject({ cached: true, status: "succeeded" });
      const [hookedFromCache] = await receiver.received(`${hook}-cached`);
      const found = [accepted.text, final.text, events, cached.text].map(textIn);
      for (const received of [hooked, hookedFromCache]) {
        found.push(textIn(rawMember(received?.raw as Buffer, "data") as string));
      }
      expect(found).toEqual(new Array(6).fill(back));
      expect(list).toContain(`"metadata":${back},`);
    },
  );

  test.each(written)("of a retry and of a redrive: %s", async (sent, back = sent) => {
    const failed = await raw("POST", path, `{"input":{"x":[[100]]},"metadata":${sent}}`, { prefer: "wait=20" });
    expect(JSON.parse(failed.text).status).toBe("failed");
    const retried = await raw("POST", `/v1/predictions/${idIn(failed.text)}/retry`);
    expect([retried.status, textIn(retried.text)]).toEqual([202, back]);
    const id = idIn(retried.text);
    await stack.final(id);
    expect(textIn((await raw("GET", `/v1/predictions/${id}`)).text)).toBe(back);
    const redrive = await raw("POST", "/v1/failures/redrive", '{"model":"throws-on-row","rate":1000}');
    expect(redrive.status).toBe(202);
    await stack.get(`/v1/failures/redrives/${idIn(redrive.text)}?wait=20`);
    const redriven = await eventually(async () => {
      const { body } = await stack.get("/v1/predictions?limit=20");
      const again = body.data.find(({ retry_of: of }: { retry_of: string }) => of === id);
      expect(again?.status).toBe("failed");
      return again.id as string;
    });
    expect(textIn((await raw("GET", `/v1/predictions/${redriven}`)).text)).toBe(back);
  });

  test.each(written)("of batches in JSON and NDJSON, and of their retries: %s", async (sent, back = sent) => {
    const inJson = `{"inputs":[{"x":[[1]]},{"x":[[100]]}],"metadata":${sent}}`;
    const { id } = await submitBatch(stack, "throws-on-row", inJson, { type: types.json });
    await finalBatch(stack, id);
    const query = `?metadata=${encodeURIComponent(sent)}`;
    const other = await submitBatch(stack, "throws-on-row", '{"x":[[1]]}\n', { query });
    await finalBatch(stack, other.id);
    const retried = await raw("POST", `/v1/batches/${id}/retry`);
    await finalBatch(stack, idIn(retried.text));
    for (const each of [id, other.id, idIn(retried.text)]) {
      expect(textIn((await raw("GET", `/v1/batches/${each}`)).text)).toBe(back);
    }
    expect(textIn(retried.text)).toBe(back);
  });

  test("or are refused if their text is too long, even if their value is short", async () => {
    const long = `{"a":1.${"0".repeat(5000)}}`;
    const answer = await stack.call("POST", path, {
      text: `{"input":{"x":[[5]]},"metadata":${long}}`,
      headers: { "content-type": types.json },
    });
    assertProblem(answer, 422, "invalid_request");
    expect(answer.body.errors).toMatchObject([{ pointer: "/metadata" }]);
    const spaced = `{"input":{"x":[[5]]},"cache":false,"metadata":{"a":1${" ".repeat(5000)}}}`;
    expect((await raw("POST", path, spaced)).status).toBe(202);
  });
});
