/** Notes what is to be let go of at the end. */
export type OnClose = (release: () => Promise<unknown> | unknown) => void;

/** Runs `use` and then lets go of all that it noted, in reverse order, however it ended. */
export async function withReleasers<T>(use: (onClose: OnClose) => Promise<T>): Promise<T> {
  const releasers: (() => Promise<unknown> | unknown)[] = [];
  try {
    return await use((release) => void releasers.push(release));
  } finally {
    for (const release of releasers.reverse()) await release();
  }
}
