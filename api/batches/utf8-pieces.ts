/** Text that is UTF-8, in pieces of so many bytes at the most, none of which ends within a character. */
export function* utf8Pieces(bytes: Buffer, pieceBytes: number): Generator<string> {
  for (let at = 0; at < bytes.length; ) {
    let end = Math.min(bytes.length, at + pieceBytes);
    // All bytes of a character but its first are of the form 10xxxxxx.
    while (end < bytes.length && ((bytes[end] as number) & 0xc0) === 0x80) end -= 1;
    yield bytes.toString("utf8", at, end);
    at = end;
  }
}
