/** Seeded random choices, the same on every run, so that a failure can be repeated. */
export interface Random {
  /** A number in [0, 1). */
  unit(): number;
  /** An integer in [0, `end`). */
  below(end: number): number;
  pick<T>(choices: readonly T[]): T;
}

/** Mulberry32: small, and random enough for tests. */
export function random(seed: number): Random {
  let state = seed * 0x9e3779b9;
  const unit = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (end: number) => Math.floor(unit() * end);
  return { unit, below, pick: (choices) => choices[below(choices.length)] as never };
}
