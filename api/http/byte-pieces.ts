const smallestBlockBytes = 16 * 1024;

/**
 * Bytes that come in pieces and are wanted as a whole. Small pieces are put together as they come: a million of one
 * byte each would take a hundred times their size as objects.
 */
export class BytePieces {
  readonly #blockBytes: number;
  #pieces: Buffer[] = [];
  #block: Buffer | null = null;
  #used = 0;
  #length = 0;

  /** `expectedBytes`: how much will come, where that is known, so that nothing need be put together in the end. */
  constructor(expectedBytes = 0) {
    this.#blockBytes = Math.max(smallestBlockBytes, expectedBytes);
  }

  get length(): number {
    return this.#length;
  }

  /** Adds a copy of the bytes. */
  push(bytes: Buffer): void {
    this.#length += bytes.length;
    if (bytes.length >= this.#blockBytes) {
      this.#endBlock();
      this.#pieces.push(Buffer.from(bytes));
      return;
    }
    if (this.#block !== null && this.#used + bytes.length > this.#blockBytes) this.#endBlock();
    this.#block ??= Buffer.allocUnsafe(this.#blockBytes);
    bytes.copy(this.#block, this.#used);
    this.#used += bytes.length;
  }

  /** All of it. */
  peek(): Buffer {
    this.#endBlock();
    return this.#pieces.length === 1 ? (this.#pieces[0] as Buffer) : Buffer.concat(this.#pieces, this.#length);
  }

  /** All of it, after which there is nothing. */
  take(): Buffer {
    const whole = this.peek();
    this.clear();
    return whole;
  }

  clear(): void {
    this.#pieces = [];
    this.#block = null;
    this.#used = 0;
    this.#length = 0;
  }

  #endBlock(): void {
    if (this.#block !== null) this.#pieces.push(this.#block.subarray(0, this.#used));
    this.#block = null;
    this.#used = 0;
  }
}
