/** Resources that a start has opened, to be closed in reverse order. */
export interface Releasers {
  add(release: () => Promise<unknown> | unknown): void;
  /** Whether it has begun to close. */
  readonly closing: boolean;
  /** May be called twice; the second call waits for the first. */
  close(): Promise<void>;
}

export function createReleasers(): Releasers {
  const releases: (() => Promise<unknown> | unknown)[] = [];
  let closing: Promise<void> | null = null;
  const closeAll = async () => {
    for (const release of releases.toReversed()) await release();
  };
  return {
    add: (release) => releases.push(release),
    get closing() {
      return closing !== null;
    },
    close() {
      closing ??= closeAll();
      return closing;
    },
  };
}
