import { oneLine } from "@millrace/shared/service/one-line.js";
import type { Response } from "express";

const heartbeatMs = 15_000;

/**
 * Server-sent events `status`: the JSON of something that ends, each time that its state is another. An event's id
 * names the state, so that a client that reconnects with `Last-Event-ID` is sent only new ones.
 */
export class StatusEvents {
  readonly #response: Response;
  readonly #heartbeat: NodeJS.Timeout;
  #seen: string | undefined;

  private constructor(response: Response, lastEventId: string | undefined) {
    this.#response = response;
    this.#seen = lastEventId;
    response.writeHead(200, {
      "Content-Type": "text/event-stream",
      "Cache-Control": "no-store",
      "X-Accel-Buffering": "no",
    });
    this.#heartbeat = setInterval(() => response.write(": still here\n\n"), heartbeatMs);
  }

  /**
   * Begins a stream; null for a client that has seen the final state, which 204 tells to stop. To be ended by the
   * caller.
   */
  static open(response: Response, first: { id: string; final: boolean }): StatusEvents | null {
    const last = response.req.headers["last-event-id"];
    if (!first.final || first.id !== last)
      return new StatusEvents(response, typeof last === "string" ? last : undefined);
    response.status(204).end();
    return null;
  }

  /** Whether the client reads more slowly than it is written to. */
  get isBehind(): boolean {
    return this.#response.writableNeedDrain;
  }

  /** Sends a state, unless it is the last one that was sent. */
  show(id: string, json: () => string): void {
    if (id === this.#seen) return;
    this.#seen = id;
    this.#response.write(`event: status\nid: ${id}\ndata: ${oneLine(json())}\n\n`);
  }

  end(): void {
    clearInterval(this.#heartbeat);
    this.#response.end();
  }
}
