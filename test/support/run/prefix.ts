import { createHash, randomBytes } from "node:crypto";
import { relative } from "node:path";
import { expect } from "vitest";
import { root } from "./tools.js";

/** The running test file, relative to the project. */
export function runningFile(): string {
  const path = expect.getState().testPath;
  if (path === undefined) throw new Error("no test file is running");
  return relative(root, path);
}

/** A new key prefix, which tells the running test file. */
export const newPrefix = (): string => `${prefixOf(runningFile())}${randomBytes(3).toString("hex")}`;

/** The beginning of all key prefixes of a test file, whose path is relative to the project. */
export const prefixOf = (file: string): string => `t-${createHash("sha1").update(file).digest("hex").slice(0, 4)}`;
