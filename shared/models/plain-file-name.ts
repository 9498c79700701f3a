import { z } from "zod";

/** The name of a file in a version's own folder: no path, so that nothing outside can be meant. */
export const plainFileName = z
  .string()
  .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/, "must be the plain name of a file in the version's folder");
