import { createHash, createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/** A bucket of an S3-compatible store in this process. It checks signatures (AWS Signature Version 4) and checksums. */
export async function openBucket(keyId: string, secret: string) {
  const objects = new Map<string, Buffer>();
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    const path = request.url as string;
    const sum = createHash("sha256").update(body).digest("hex");
    const signed = request.headers["x-amz-content-sha256"] === sum && isSigned(request, keyId, secret);
    const found = objects.get(path);
    if (!signed) response.writeHead(403).end("<Error><Code>SignatureDoesNotMatch</Code></Error>");
    else if (request.method === "PUT") {
      objects.set(path, body);
      response.writeHead(200).end();
    } else if (found === undefined) response.writeHead(404).end("<Error><Code>NoSuchKey</Code></Error>");
    else response.writeHead(200).end(found);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/bucket`,
    objects,
    close: () => new Promise((done) => server.close(done)),
  };
}

function isSigned(request: IncomingMessage, keyId: string, secret: string): boolean {
  const authorization = request.headers.authorization ?? "";
  const [, credential = "", names = "", signature] =
    /^AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(authorization) ??
    [];
  const [id, ...scope] = credential.split("/");
  const headers = names.split(";").map((name) => `${name}:${String(request.headers[name] ?? "").trim()}\n`);
  const [path, query = ""] = (request.url as string).split("?");
  const sum = request.headers["x-amz-content-sha256"];
  const canonical = [request.method, path, query, headers.join(""), names, sum].join("\n");
  const digest = createHash("sha256").update(canonical).digest("hex");
  const text = ["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope.join("/"), digest].join("\n");
  const hmac = (key: string | Buffer, part: string) => createHmac("sha256", key).update(part).digest();
  const key = scope.reduce<string | Buffer>((current, part) => hmac(current, part), `AWS4${secret}`);
  return id === keyId && signature === hmac(key, text).toString("hex");
}
