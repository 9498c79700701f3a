import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** The environment that lets a stack call webhooks on this machine. */
export const localWebhooks = {
  WEBHOOK_SECRET: `whsec_${randomBytes(24).toString("base64")}`,
  WEBHOOK_ALLOW_HOSTS: "127.0.0.1",
};

/** A receiver that answers 204 to everything and keeps each body by its path. */
export interface WebhookSink {
  url(path: string): string;
  // biome-ignore lint/suspicious/noExplicitAny: the shape depends on the event
  at(path: string): any[];
  close(): Promise<void>;
}

export async function openWebhookSink(): Promise<WebhookSink> {
  const received = new Map<string, unknown[]>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const path = request.url as string;
      received.set(path, [...(received.get(path) ?? []), JSON.parse(Buffer.concat(chunks).toString())]);
      response.writeHead(204).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: (path) => `http://127.0.0.1:${port}${path}`,
    at: (path) => received.get(path) ?? [],
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
