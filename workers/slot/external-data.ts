import { closeSync, fstatSync, openSync, readSync } from "node:fs";

/**
 * The files outside the ONNX file that its tensors say their data are in. The file is a Protocol Buffers message; only
 * what leads to a tensor is followed, and the data themselves, which are nearly all of it, are never read. Throws for
 * bytes that are no such message.
 */
export function externalDataPaths(file: string): string[] {
  const descriptor = openSync(file, "r");
  try {
    const reader = new Reader(descriptor, fstatSync(descriptor).size);
    const paths = new Set<string>();
    walk(reader, 0, reader.size, "model", paths, 0);
    return [...paths];
  } finally {
    closeSync(descriptor);
  }
}

/** Why a location in an ONNX file may not be followed; null where it is a plain path below the version's folder. */
export function locationFault(location: string, files: ReadonlySet<string>): string | null {
  const said = JSON.stringify(location.slice(0, 200));
  const segments = location.split("/");
  const strange = location === "" || /[\\\0]/.test(location) || location.startsWith("/") || /^[A-Za-z]:/.test(location);
  if (strange || segments.includes("..")) return `its external data ${said} leave the version's folder`;
  const path = segments.filter((segment) => segment !== "." && segment !== "").join("/");
  return files.has(path) ? null : `its external data ${said} are not among the version's files`;
}

/** For each message that can lead to a tensor: field number → message it holds; `location` is collected. */
const fields: Record<string, Record<number, string>> = {
  model: { 7: "graph", 20: "training", 25: "function" },
  training: { 1: "graph", 2: "graph" },
  function: { 7: "node", 11: "attribute" },
  graph: { 1: "node", 5: "tensor", 15: "sparse" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse" },
  sparse: { 1: "tensor", 2: "tensor" },
  tensor: { 13: "entry" },
};
const deepest = 100;
const largestEntry = 65_536;

function walk(reader: Reader, from: number, to: number, kind: string, paths: Set<string>, depth: number): void {
  if (depth > deepest) throw new Error("its messages are nested too deep");
  for (let at = from; at < to; ) {
    const tag = reader.varint(at);
    const wire = tag.value & 7;
    const field = Math.floor(tag.value / 8);
    at = tag.end;
    if (wire === 0) at = reader.varint(at).end;
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      const length = reader.varint(at);
      at = length.end;
      const end = at + length.value;
      if (end > to) throw new Error("it is cut off");
      const inner = fields[kind]?.[field];
      if (inner === "entry") {
        const path = location(reader, at, end);
        if (path !== null) paths.add(path);
      } else if (inner !== undefined) walk(reader, at, end, inner, paths, depth + 1);
      at = end;
    } else throw new Error("it is no ONNX file");
    if (at > to) throw new Error("it is cut off");
  }
}

/** The value of a key-value entry whose key is `location`. */
function location(reader: Reader, from: number, to: number): string | null {
  if (to - from > largestEntry) throw new Error("an entry of its external data is too long");
  const texts: Record<number, string> = {};
  for (let at = from; at < to; ) {
    const tag = reader.varint(at);
    const length = reader.varint(tag.end);
    if ((tag.value & 7) !== 2) throw new Error("an entry of its external data is damaged");
    at = length.end + length.value;
    texts[tag.value >> 3] = reader.bytes(length.end, length.value).toString();
  }
  return texts[1] === "location" ? (texts[2] ?? "") : null;
}

/** Reads here and there in a file, a window at a time. */
class Reader {
  readonly size: number;
  readonly #descriptor: number;
  readonly #window = Buffer.allocUnsafe(65_536);
  #start = 0;
  #length = 0;

  constructor(descriptor: number, size: number) {
    this.#descriptor = descriptor;
    this.size = size;
  }

  bytes(at: number, length: number): Buffer {
    if (at < this.#start || at + length > this.#start + this.#length) {
      if (at + length > this.size) throw new Error("it is cut off");
      const bytesRead = readSync(this.#descriptor, this.#window, 0, this.#window.length, at);
      if (bytesRead < length) throw new Error("it is cut off");
      this.#start = at;
      this.#length = bytesRead;
    }
    return this.#window.subarray(at - this.#start, at - this.#start + length);
  }

  varint(at: number): { value: number; end: number } {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.bytes(at + i, 1)[0] as number;
      // The high bits of negative numbers are lost to precision, which is nothing to lengths and tags.
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) return { value, end: at + i + 1 };
    }
    throw new Error("it is no ONNX file");
  }
}
