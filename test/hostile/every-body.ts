import { gzipSync } from "node:zlib";
import { keys, type Owner } from "../support/stack/stack.js";
import { type HostileRow, lines, tree, wire } from "./request.js";

/** The kind of body of a route. */
type Form = "json" | "options" | "tensors" | "upload" | "file" | "none";

interface BodyRoute {
  form: Form;
  /** A path of the route. */
  at: string;
  as?: Owner;
  /** Reads a body of any content type as JSON. */
  anyType?: boolean;
  /** Answers every fault of a request with 400, as clients of the Open Inference Protocol expect. */
  openInference?: boolean;
}

const unknownId = "0".repeat(28);
const admin = { form: "options", as: "admin" } as const;

const repository = { ...admin, anyType: true, openInference: true } as const;

/** Every route with POST or PUT, by method and template; a test compares it with the router. */
export const bodyRoutes: Record<string, BodyRoute> = {
  "POST /v1/models/:model/predictions": { form: "json", at: `/v1/models/${tree}/predictions` },
  "POST /v1/models/:model/batches": { form: "upload", at: `/v1/models/${tree}/batches` },
  "POST /v1/failures/redrive": { form: "json", at: "/v1/failures/redrive" },
  "POST /predict": { form: "json", at: "/predict" },
  "POST /predict/batch": { form: "json", at: "/predict/batch" },
  "POST /predict/intent": { form: "json", at: "/predict/intent" },
  "POST /predict/anomaly": { form: "json", at: "/predict/anomaly" },
  "POST /infer": { form: "file", at: "/infer" },
  "POST /v2/models/:model/infer": { form: "tensors", at: "/v2/models/echo-float32/infer", openInference: true },
  "POST /v2/models/:model/versions/:version/infer": {
    form: "tensors",
    at: "/v2/models/echo-float32/versions/1/infer",
    openInference: true,
  },
  "POST /v2/repository/index": { form: "options", at: "/v2/repository/index", anyType: true, openInference: true },
  "PUT /v1/models/:model/traffic": { ...admin, at: `/v1/models/${tree}/traffic` },
  "POST /v1/models/:model/rollback": { ...admin, at: `/v1/models/${tree}/rollback` },
  "POST /v1/models/:model/load": { ...admin, at: `/v1/models/${tree}/load` },
  "POST /v1/models/:model/unload": { ...admin, at: `/v1/models/${tree}/unload` },
  "POST /admin/keys": { ...admin, at: "/admin/keys" },
  "POST /admin/keys/:key/rotate": { ...admin, at: "/admin/keys/nothing/rotate" },
  "POST /admin/keys/:key/revoke": { form: "none", at: "/admin/keys/nothing/revoke", as: "admin" },
  "POST /v1/predictions/:id/cancel": { form: "none", at: `/v1/predictions/${unknownId}/cancel` },
  "POST /v1/predictions/:id/retry": { form: "none", at: `/v1/predictions/${unknownId}/retry` },
  "POST /v1/batches/:id/cancel": { form: "none", at: `/v1/batches/${unknownId}/cancel` },
  "POST /v1/batches/:id/retry": { form: "none", at: `/v1/batches/${unknownId}/retry` },
  "POST /v1/deliveries/:id/redeliver": { form: "none", at: `/v1/deliveries/${unknownId}/redeliver` },
  "POST /v1/failures/redrives/:id/cancel": { form: "none", at: `/v1/failures/redrives/${unknownId}/cancel` },
  "POST /v2/repository/models/:model/load": { ...repository, at: "/v2/repository/models/nobody/load" },
  "POST /v2/repository/models/:model/unload": { ...repository, at: "/v2/repository/models/nobody/unload" },
};

const multipart = "multipart/form-data; boundary=x";
const typeOf: Record<Form, string> = {
  json: "application/json",
  options: "application/json",
  tensors: "application/octet-stream",
  upload: "application/json",
  file: multipart,
  none: "application/json",
};
const part = (name: string, content: string) =>
  `--x\r\nContent-Disposition: form-data; name="${name}"; filename="f"\r\n\r\n${content}\r\n`;
const keysOf = (count: number) => `{${Array.from({ length: count }, (_, i) => `"${i.toString(36)}":0`).join(",")}}`;
const manyKeys = keysOf(10_001);
const deep = `{"a":${"[".repeat(100)}${"]".repeat(100)}}`;
const invalidUtf8 = Buffer.concat([Buffer.from('{"a":"'), Buffer.of(0xc0, 0xaf), Buffer.from('"}')]);

/** An attack on one kind of body, with the expected status. */
interface Attack {
  name: string;
  body: string | Buffer;
  type?: string;
  headers?: readonly string[];
  status: number;
}

const chunksOf = (text: string) => [...text].map((byte) => `1\r\n${byte}\r\n`).join("");
/** `manyChunks`: twice the accepted number of one-byte chunks. `mostChunks`: with an object for each, 180 MB. */
const manyChunks = 20_000;
const mostChunks = 400_000;
const tiny = {
  json: chunksOf(`"${"a".repeat(manyChunks)}`),
  most: chunksOf(`"${"a".repeat(mostChunks)}`),
  lines: chunksOf("1\n".repeat(manyChunks / 2)),
  file: chunksOf(`${part("file", "").slice(0, -2)}${"a".repeat(manyChunks)}`),
};
const gzip = ["Content-Encoding: gzip"];
const bomb = gzipSync(Buffer.alloc(96 * 1024 * 1024, 0x20));

/** Attacks refused by the common check of JSON bodies. */
const jsonAttacks: Attack[] = [
  { name: "a key twice", body: '{"a":1,"a":2}', status: 422 },
  { name: "a key twice, once escaped", body: '{"a":1,"\\u0061":2}', status: 422 },
  { name: "10,001 keys", body: manyKeys, status: 422 },
  { name: "100 levels", body: deep, status: 422 },
  { name: "invalid UTF-8", body: invalidUtf8, status: 400 },
  { name: "malformed JSON", body: "{", status: 400 },
  { name: "a gzip bomb", body: bomb, headers: gzip, status: 413 },
  { name: "a body that is not gzip", body: "{}", headers: gzip, status: 400 },
  { name: "an unknown encoding", body: "{}", headers: ["Content-Encoding: zstd"], status: 415 },
];

const textType = (status: number): Attack => ({ name: "another type", body: "{", type: "text/plain", status });
const inBinary = (body: string | Buffer, name: string, status: number): Attack => ({
  name: `${name}, before binary data`,
  body: Buffer.concat([Buffer.from(body as string), Buffer.alloc(12)]),
  headers: [`Inference-Header-Content-Length: ${Buffer.byteLength(body)}`],
  status,
});

const attacksOn: Record<Form, (route: BodyRoute) => Attack[]> = {
  json: () => [...jsonAttacks, textType(415)],
  options: ({ anyType }) => [...jsonAttacks, textType(anyType ? 400 : 415)],
  tensors: () => [
    ...jsonAttacks,
    textType(400),
    inBinary('{"a":1,"a":2}', "a key twice", 400),
    inBinary(manyKeys, "10,001 keys", 400),
    inBinary(deep, "100 levels", 400),
    inBinary(invalidUtf8, "invalid UTF-8", 400),
    inBinary(" ".repeat(17 * 1024 * 1024), "17 MB of JSON", 413),
  ],
  upload: () => [
    { name: "an option twice", body: '{"inputs":[1],"priority":1,"priority":2}', status: 422 },
    { name: "an option twice, once escaped", body: '{"inputs":[1],"cache":true,"\\u0063ache":true}', status: 422 },
    { name: "1,001 keys", body: `${keysOf(1001).slice(0, -1)},"inputs":[1]}`, status: 422 },
    { name: "100 levels", body: `{"inputs":[1],"metadata":${deep}}`, status: 422 },
    {
      name: "invalid UTF-8 in an option",
      body: Buffer.concat([Buffer.from('{"inputs":[1],"metadata":'), invalidUtf8]),
      status: 400,
    },
    { name: "a gzip bomb", body: bomb, headers: gzip, type: "application/x-ndjson", status: 413 },
    textType(415),
  ],
  file: () => [
    { name: "a file twice", body: `${part("file", "a")}${part("file", "b")}--x--\r\n`, status: 422 },
    { name: "another field", body: `${part("other", "a")}--x--\r\n`, status: 422 },
    { name: "no end", body: part("file", "a"), status: 400 },
    { name: "a compressed upload", body: bomb, headers: gzip, status: 400 },
    textType(415),
  ],
  none: () => [
    { name: "an unexpected body", body: "{", status: 404 },
    { name: "a gzip bomb", body: bomb, headers: gzip, status: 404 },
  ],
};

const chunkedHead = (method: string, { as = "alice", at, form }: BodyRoute, type = typeOf[form]) =>
  lines(
    `${method} ${at} HTTP/1.1`,
    "Host: a",
    "Connection: close",
    `Authorization: Bearer ${keys[as]}`,
    `Content-Type: ${type}`,
    "Transfer-Encoding: chunked",
  );

function tinyChunks(method: string, route: BodyRoute): [request: string, status: number] {
  const end = "0\r\n\r\n";
  if (route.form === "upload") {
    // Lines may arrive one by one, so an upload of many chunks is read, without buffering.
    return [`${chunkedHead(method, route, "application/x-ndjson")}${tiny.lines}${end}`, 202];
  }
  const body = route.form === "file" ? tiny.file : tiny.json;
  return [`${chunkedHead(method, route)}${body}${end}`, route.form === "none" ? 404 : 400];
}

/** The attacks on each route with a body. */
export const everyBodyRows: HostileRow[] = Object.entries(bodyRoutes).flatMap(([template, route]) => {
  const method = template.slice(0, template.indexOf(" "));
  const { as = "alice", at, form, openInference = false } = route;
  const statusOf = (status: number) => (openInference && (status === 415 || status === 422) ? 400 : status);
  const rows = attacksOn[form](route).map(({ body, headers = [], name, status, type = typeOf[form] }): HostileRow => {
    return [`${template}: ${name}`, wire(method, at, { as, body, type, headers }), statusOf(status)];
  });
  const [chunks, status] = tinyChunks(method, route);
  rows.push([`${template}: ${manyChunks} chunks of one byte`, chunks, status]);
  if (form === "tensors") {
    const most = `${chunkedHead(method, route)}${tiny.most}0\r\n\r\n`;
    rows.push([`${template}: ${mostChunks} chunks of one byte`, most, 400]);
  }
  if (form === "none") return rows;
  const large = chunkedHead(method, route).replace("Transfer-Encoding: chunked", `Content-Length: ${2 ** 50}`);
  rows.push([`${template}: a body of 1 PB`, large, 413]);
  return rows;
});
