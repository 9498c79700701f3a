import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";

const data = fileURLToPath(new URL("../../../shared/data/", import.meta.url));
const reference = fileURLToPath(new URL("../../models/training/reference/", import.meta.url));

/** Whether a dataset exists on this machine; none is part of the repository. */
export const hasData = (folder: string): boolean => existsSync(join(data, folder));

/** The lines of a CSV file of the datasets, header first; quoted fields may hold commas and doubled quotes. */
export function readRows(file: string): string[][] {
  const text = gunzipSync(readFileSync(join(data, file))).toString();
  const rows: string[][] = [];
  let row: string[] = [];
  // A field, quoted or not, and its end.
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    row.push(quoted?.replaceAll('""', '"') ?? plain ?? "");
    if (end === ",") continue;
    if (row.length > 1) rows.push(row);
    row = [];
  }
  return rows;
}

/** The training library's answers for held-out rows, `width` numbers a row, and the file that lists the rows. */
export function readReference(model: string, width: number): { rows: Float32Array[]; about: Record<string, unknown> } {
  const about = JSON.parse(gunzipSync(readFileSync(join(reference, `${model}.json.gz`))).toString());
  return { rows: rowsOf(model, width), about };
}

/** The same for a model of intrusion detection: rows of the dataset, and the probability of each class. */
export function readHeldOut(model: string): { rows: number[]; classes: string[]; probabilities: Float32Array[] } {
  const { classes, rows } = JSON.parse(gunzipSync(readFileSync(join(reference, "held-out.json.gz"))).toString());
  return { rows, classes, probabilities: rowsOf(model, classes.length) };
}

function rowsOf(model: string, width: number): Float32Array[] {
  const bytes = new Uint8Array(gunzipSync(readFileSync(join(reference, `${model}.f32.gz`))));
  const values = new Float32Array(bytes.buffer, 0, bytes.length / 4);
  return Array.from({ length: values.length / width }, (_, i) => values.subarray(i * width, (i + 1) * width));
}

/** Calls `each` for every index below `count`, a few at a time. */
export async function inParallel(count: number, each: (index: number) => Promise<void>, width = 64): Promise<void> {
  let next = 0;
  const caller = async () => {
    for (let i = next; i < count; i = next) {
      next += 1;
      await each(i);
    }
  };
  await Promise.all(Array.from({ length: width }, caller));
}

/** Flows by row number in the dataset; rows are numbered through its files, ordered by name. */
export function readFlows(rows: readonly number[]): number[][] {
  const wanted = new Set(rows);
  const flows: number[][] = [];
  let row = 0;
  for (const file of readdirSync(join(data, "cicids2017")).sort()) {
    const [header = "", ...lines] = gunzipSync(readFileSync(join(data, "cicids2017", file)))
      .toString()
      .trimEnd()
      .split(/\r?\n/);
    const features = header.split(",").filter((name) => name !== "Label").length;
    for (const line of lines) {
      if (wanted.has(row)) flows.push(line.split(",").slice(0, features).map(Number));
      row += 1;
    }
  }
  return flows;
}
