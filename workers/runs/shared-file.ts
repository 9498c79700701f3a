import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync, writevSync } from "node:fs";

/** Memory that has the form of files; where there is none, tables go through the pipe. */
const memoryFolder = "/dev/shm";

/**
 * Where a table passes from a worker to one slot: a file in memory without a name, which both have open. Through a pipe
 * it takes three times as long, because that gives and takes it in small pieces. Null where there is no such memory.
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

/** Lays parts down, one after the other from the beginning; false where the memory is full. */
export function writeTable(file: number, parts: readonly Uint8Array[]): boolean {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  try {
    return writevSync(file, parts, 0) === size;
  } catch {
    return false;
  }
}

/** Takes up what was laid down, with `before` bytes in front of it that are somebody else's. The buffer is good until the next time. */
export function readTable(file: number, length: number, before: number): Buffer {
  if (taken.length < before + length) taken = Buffer.allocUnsafeSlow(before + length);
  for (let at = 0; at < length; ) {
    const read = readSync(file, taken, before + at, length - at, at);
    if (read === 0) throw new Error("a table is shorter than was said");
    at += read;
  }
  return taken.subarray(before, before + length);
}

let taken = Buffer.alloc(0);
