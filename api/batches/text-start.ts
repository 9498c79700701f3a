const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf]);

/** The beginning of a text that comes in pieces, where a byte order mark is passed over. */
export class TextStart {
  /** The first bytes, while they are so few that they may be half of a byte order mark; null from then on. */
  #first: Buffer | null = Buffer.alloc(0);

  /** The piece from where the text begins in it; null while that is not known yet. */
  take(bytes: Buffer): { bytes: Buffer; from: number } | null {
    if (this.#first === null) return { bytes, from: 0 };
    const first = this.#first.length === 0 ? bytes : Buffer.concat([this.#first, bytes]);
    this.#first = first;
    if (first.length < byteOrderMark.length) return null;
    this.#first = null;
    return { bytes: first, from: first.subarray(0, byteOrderMark.length).equals(byteOrderMark) ? 3 : 0 };
  }

  /** The text is over: the few bytes that it may have been. */
  end(): Buffer {
    const few = this.#first ?? Buffer.alloc(0);
    this.#first = null;
    return few;
  }
}
