import { z } from "zod";

/** A file name in a version's own folder; never a path, so that it cannot lead outside. */
export const plainFileName = z
  .string()
  .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/, "must be the plain name of a file in the version's folder");
