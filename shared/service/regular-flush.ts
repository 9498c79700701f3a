/** A task that is done at an interval, and once more at the end. */
export interface RegularFlush {
  /** Does the task a last time. May be called twice. */
  close(): Promise<void>;
}

/** Does a task, which must not reject, every `everyMs` ms until closed; never twice at the same time. */
export function flushRegularly(everyMs: number, flush: () => Promise<void>): RegularFlush {
  let flushing = Promise.resolve();
  const next = () => {
    flushing = flushing.then(flush);
    return flushing;
  };
  const timer = setInterval(() => void next(), everyMs);
  return {
    close() {
      clearInterval(timer);
      return next();
    },
  };
}
