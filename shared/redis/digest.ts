import { createHash } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";

/** 128 bits of a SHA-256, in base64url: what a text of any length is compared by. */
export const digestOf = (...parts: (string | Uint8Array)[]): string => {
  const digest = createHash("sha256");
  for (const part of parts) digest.update(part);
  return digest.digest("base64url").slice(0, 22);
};

const hashedAtOnce = 1 << 20;

/** As `digestOf`, but with a turn of the event loop after every MiB, so that a large text holds up nobody. */
export async function digestInTurns(...parts: (string | Uint8Array)[]): Promise<string> {
  const digest = createHash("sha256");
  for (const part of parts) {
    if (typeof part === "string") digest.update(part);
    else {
      for (let at = 0; at < part.length; at += hashedAtOnce) {
        digest.update(part.subarray(at, at + hashedAtOnce));
        if (at + hashedAtOnce < part.length) await nextTurn();
      }
    }
  }
  return digest.digest("base64url").slice(0, 22);
}
