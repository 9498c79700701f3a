/** Rows that are to be run as they are, over and over until there were `rows` of them. */
export interface RunRowsOrder {
  /** The ONNX file. */
  model: string;
  /** float32 rows, one after the other. */
  packedFile: string;
  features: number;
  rows: number;
  /** Rows of one run. */
  chunkRows: number;
  /** A body that is parsed once before, or null. */
  jsonFile: string | null;
}

/** How long it took, and CPU time of the runs; reading of files and opening of the model not counted. */
export type RunRowsReply = { parseMs: number; runMs: number; runCpuSeconds: number } | { fault: string };
