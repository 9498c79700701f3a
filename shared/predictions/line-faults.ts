/** Consecutive lines of a batch that fail alike; `offset` counts lines from the chunk's first. */
export interface LineFault {
  offset: number;
  /** Number of lines, at least 1. */
  count: number;
  code: string;
  detail: string;
}

/** Details are cut to this many characters. */
export const longestDetail = 300;

/**
 * Adds a fault of the lines [offset, offset + count) behind all others, joined with the last one if they are alike.
 */
export function addFault(faults: LineFault[], offset: number, code: string, detail: string, count = 1): void {
  const last = faults.at(-1);
  if (last !== undefined && last.offset + last.count === offset && last.code === code && last.detail === detail) {
    last.count += count;
  } else if (count > 0) faults.push({ offset, count, code, detail });
}

/** The number of lines that fail. */
export function failedLines(faults: readonly LineFault[]): number {
  let lines = 0;
  for (const { count } of faults) lines += count;
  return lines;
}

/** The offsets of the lines without a fault, in order. */
export function faultlessOffsets({ faults, lines }: { faults: readonly LineFault[]; lines: number }): number[] {
  const offsets: number[] = [];
  let offset = 0;
  for (const fault of faults) {
    for (; offset < fault.offset; offset++) offsets.push(offset);
    offset += fault.count;
  }
  for (; offset < lines; offset++) offsets.push(offset);
  return offsets;
}

/** Faults of two kinds in one list, in order; no line has two. */
export function mergeFaults(a: readonly LineFault[], b: readonly LineFault[]): LineFault[] {
  const merged: LineFault[] = [];
  let next = 0;
  const addBefore = (offset: number) => {
    for (let fault = b[next]; fault !== undefined && fault.offset < offset; fault = b[++next]) add(fault);
  };
  const add = ({ code, count, detail, offset }: LineFault) => addFault(merged, offset, code, detail, count);
  for (const fault of a) {
    addBefore(fault.offset);
    add(fault);
  }
  addBefore(Number.POSITIVE_INFINITY);
  return merged;
}
