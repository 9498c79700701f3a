import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync, writevSync } from "node:fs";

/** A file system in memory; without one, tables go through the pipe. */
const memoryFolder = "/dev/shm";

/**
 * A nameless file in memory that a worker and one slot have open, for tables. A pipe takes three times as long, because
 * it passes them in small pieces. Null where there is no file system in memory.
 */
export function openSharedFile(): number | null {
  const path = `${memoryFolder}/millrace-${process.pid}-${randomBytes(6).toString("hex")}`;
  try {
    const file = openSync(path, "wx+", 0o600);
    unlinkSync(path);
    return file;
  } catch {
    return null;
  }
}

export const closeSharedFile = (file: number): void => closeSync(file);

/** Writes parts one after the other from the beginning; false where the memory is full. */
export function writeTable(file: number, parts: readonly Uint8Array[]): boolean {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  try {
    return writevSync(file, parts, 0) === size;
  } catch {
    return false;
  }
}

/** Reads a table of `length` bytes behind `before` bytes of the caller's. The buffer is valid until the next call. */
export function readTable(file: number, length: number, before: number): Buffer {
  if (taken.length < before + length) taken = Buffer.allocUnsafeSlow(before + length);
  for (let at = 0; at < length; ) {
    const read = readSync(file, taken, before + at, length - at, at);
    if (read === 0) throw new Error("The table is shorter than its length says.");
    at += read;
  }
  return taken.subarray(before, before + length);
}

let taken = Buffer.alloc(0);
