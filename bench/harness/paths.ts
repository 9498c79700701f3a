import { fileURLToPath } from "node:url";

/** A file of the repository, by its path from the root. */
export const inRoot = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
