const lookEveryMs = 250;

/**
 * Ends this process at once when the npm that runs it has ended, in whatever way; its children end with it. A process
 * that npm does not run outlives its shell, as users of `nohup` and `setsid` expect.
 * @param {Record<string, string | undefined>} env
 */
export function endWithNpm(env) {
  if (env.npm_lifecycle_event === undefined) return;
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent) process.exit(1);
  }, lookEveryMs).unref();
}
