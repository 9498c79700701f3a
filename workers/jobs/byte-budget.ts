/** A limit of bytes that may be held at a time, granted in order of request. */
export interface ByteBudget {
  /** Resolves when there is room. A request over the whole budget is granted when nothing else is held. */
  take(bytes: number): Promise<{ release(): void }>;
}

export function createByteBudget(totalBytes: number): ByteBudget {
  let heldBytes = 0;
  const waiting: { bytes: number; admit(): void }[] = [];

  const admitNext = () => {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      if (heldBytes > 0 && heldBytes + next.bytes > totalBytes) return;
      waiting.shift();
      heldBytes += next.bytes;
      next.admit();
    }
  };
  return {
    take: (bytes) =>
      new Promise((resolve) => {
        let held = true;
        const release = () => {
          if (held) heldBytes -= bytes;
          held = false;
          admitNext();
        };
        waiting.push({ bytes, admit: () => resolve({ release }) });
        admitNext();
      }),
  };
}
