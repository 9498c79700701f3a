/** Rows to run repeatedly, until `rows` of them have run. */
export interface RunRowsOrder {
  /** The ONNX file. */
  model: string;
  /** float32 rows, one after the other. */
  packedFile: string;
  features: number;
  rows: number;
  /** Rows in each run. */
  chunkRows: number;
  /** A body to parse once before the runs, or null. */
  jsonFile: string | null;
}

/** Wall time, and CPU time of the runs, without reading files and opening the model. */
export type RunRowsReply = { parseMs: number; runMs: number; runCpuSeconds: number } | { fault: string };
