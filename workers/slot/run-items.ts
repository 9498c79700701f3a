import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import type { HeadOutput } from "../heads/head.js";
import type { RunItem } from "../runs/frames.js";

/** Rows [from, to) of a tensor [rows, …], as a view. */
export function rowsBetween({ bytes, dtype, name, shape }: PackedTensor, from: number, to: number): PackedTensor {
  const stride = bytes.length / (shape[0] as number);
  return { name, dtype, shape: [to - from, ...shape.slice(1)], bytes: bytes.subarray(from * stride, to * stride) };
}

/** An output as the item of a run. */
export const answerOf = ({ confidence, json, pack }: Exclude<HeadOutput, string>) => ({ text: json, confidence, pack });

/** The item of an input that failed. */
export const failed = (text: string, inferenceMs: number, batchRows: number): RunItem => ({
  ok: false,
  text,
  confidence: Number.NaN,
  inferenceMs,
  batchRows,
});

/** ONNX Runtime's message for a run that threw, without the node's place in the file. */
export function inferenceFault(fault: Error): string {
  const status = /Status Message: (.*)$/s.exec(fault.message)?.[1] ?? fault.message;
  return `the model cannot run this input: ${status.replaceAll(/\/\S+/g, "").trim().slice(0, 500)}`;
}
