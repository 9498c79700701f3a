/** Registers a release for the end. */
export type OnClose = (release: () => Promise<unknown> | unknown) => void;

/** Runs `use` and then all registered releases, in reverse order, even after a failure. */
export async function withReleasers<T>(use: (onClose: OnClose) => Promise<T>): Promise<T> {
  const releasers: (() => Promise<unknown> | unknown)[] = [];
  try {
    return await use((release) => void releasers.push(release));
  } finally {
    for (const release of releasers.reverse()) await release();
  }
}
