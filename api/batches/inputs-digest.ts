import { createHash } from "node:crypto";
import { ascii } from "@millrace/shared/predictions/ascii.js";
import { canonicalJson } from "@millrace/shared/predictions/canonical-json.js";

const { openBrace } = ascii;
const comma = Buffer.from(",");
/** A digest takes as long for a few bytes as for a thousand. */
const gatheredBytes = 64 * 1024;

/** A digest of the inputs of a JSON batch, which is the same in whatever order the members of their objects stand. */
export class InputsDigest {
  readonly #digest = createHash("sha256");
  readonly #gathered = Buffer.allocUnsafe(gatheredBytes);
  #used = 0;

  /** Adds the input that is JSON text in bytes [from, to). */
  add(bytes: Buffer, from: number, to: number): void {
    const input = bytes.subarray(from, to);
    this.#put(input.includes(openBrace) ? Buffer.from(sortedText(input)) : input);
    this.#put(comma);
  }

  /** Adds an input of which nothing is known but that it was too large. */
  addTooLong(): void {
    this.#put(comma);
  }

  end(): string {
    this.#flush();
    return this.#digest.digest("base64url");
  }

  #put(bytes: Buffer): void {
    if (this.#used + bytes.length > gatheredBytes) this.#flush();
    if (bytes.length > gatheredBytes) this.#digest.update(bytes);
    else this.#used += bytes.copy(this.#gathered, this.#used);
  }

  #flush(): void {
    this.#digest.update(this.#gathered.subarray(0, this.#used));
    this.#used = 0;
  }
}

function sortedText(input: Buffer): string {
  const text = input.toString();
  try {
    return canonicalJson(JSON.parse(text));
  } catch {
    // The reader of the input tells its fault.
    return text;
  }
}
