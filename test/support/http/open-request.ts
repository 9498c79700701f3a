import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { keys, type Owner } from "../stack/stack.js";

const agent = new Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY });

export interface ServerEvent {
  event: string;
  id: string;
  // biome-ignore lint/suspicious/noExplicitAny: the prediction as JSON
  data: any;
}

/** A GET over a connection of its own. */
export interface OpenRequest {
  /** Resolves when the request is sent. */
  flushed: Promise<unknown>;
  /** Resolves when the headers have arrived. */
  answered: Promise<IncomingMessage>;
  /** Resolves to the whole body when it has ended. */
  body: Promise<string>;
  /** The part of the body received so far. */
  soFar(): string;
  /** Resolves when the body received so far holds that text. */
  until(text: string): Promise<void>;
  hangUp(): void;
}

/** Sends a GET without waiting for the answer. */
export function openRequest(url: string, options: { as?: Owner; headers?: Record<string, string> } = {}): OpenRequest {
  const headers = { authorization: `Bearer ${keys[options.as ?? "alice"]}`, ...options.headers };
  const sent = request(url, { agent, headers });
  let text = "";
  const answered = once(sent, "response").then(([response]) => response as IncomingMessage);
  const body = answered.then(async (response) => {
    response.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      sent.emit("more");
    });
    await once(response, "end");
    return text;
  });
  const flushed = once(sent, "finish");
  answered.catch(() => undefined);
  body.catch(() => undefined);
  sent.on("error", () => undefined);
  sent.end();
  return {
    flushed,
    answered,
    body,
    soFar: () => text,
    async until(wanted) {
      while (!text.includes(wanted)) await once(sent, "more");
    },
    hangUp: () => sent.destroy(),
  };
}

/** The events in a stream's text, without comments and incomplete events. */
export function eventsIn(text: string): ServerEvent[] {
  const blocks = text.split("\n\n").slice(0, -1);
  return blocks
    .filter((block) => !block.startsWith(":"))
    .map((block) => {
      const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, "m").exec(block)?.[1] ?? "";
      return { event: field("event"), id: field("id"), data: JSON.parse(field("data")) };
    });
}
