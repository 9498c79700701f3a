/**
 * How many of something a test does: the first number in the suite, the second under `VOLUMES=large`, as `npm run
 * chaos` has it.
 */
export const volume = (inSuite: number, large: number): number => (process.env.VOLUMES === "large" ? large : inSuite);
