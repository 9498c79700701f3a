interface Held {
  token: string;
  ended: Promise<void>;
}

/**
 * The jobs of one queue that this worker holds. After an outage of Redis a worker may be handed a job that it still
 * runs, under a new lock. The run goes on under that lock. A second run beside it would be late again and again, and
 * would count as a death.
 */
export class HeldJobs {
  readonly #held = new Map<string, Held>();

  /**
   * Does the work of a job that was taken under `token`, once no earlier take of it is in progress here. `lock` returns
   * the token that counts by then.
   */
  async take<T>(id: string, token: string, work: (lock: () => string) => Promise<T>): Promise<T> {
    for (let before = this.#held.get(id); before !== undefined; before = this.#held.get(id)) {
      before.token = token;
      await before.ended;
    }
    let end: () => void = () => undefined;
    const held: Held = {
      token,
      ended: new Promise((resolve) => {
        end = resolve;
      }),
    };
    this.#held.set(id, held);
    try {
      return await work(() => held.token);
    } finally {
      this.#held.delete(id);
      end();
    }
  }
}
