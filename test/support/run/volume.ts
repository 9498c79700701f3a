/** The size of a test: the first number in the suite, the second under `VOLUMES=large`, which `npm run chaos` sets. */
export const volume = (inSuite: number, large: number): number => (process.env.VOLUMES === "large" ? large : inSuite);
