import { setImmediate as nextTurn } from "node:timers/promises";
import type { ResponseForm } from "@millrace/shared/predictions/response-form.js";
import { tensorText } from "@millrace/shared/tensors/packed-json.js";
import type { PackedTensor } from "@millrace/shared/tensors/tensor-pack.js";
import { datatypeOf } from "./datatypes.js";
import type { InferRequest } from "./infer-request.js";

/** The requested form of an answer: the caller's id, the outputs, and which of them as binary data. */
export interface AnswerForm {
  id: string | undefined;
  outputs: { name: string; binary: boolean }[] | null;
  binaryOutput: boolean;
}

/** An answer of the Open Inference Protocol, in pieces. */
export interface InferAnswer {
  /** The JSON, which says at its end where nothing comes after it. */
  json: Iterable<string>;
  /** Bytes of outputs that the JSON is made of, which tell how much it will be. */
  jsonTensorBytes: number;
  /** The binary data after it. */
  binary: Uint8Array[];
}

/** The form as it is kept with the job, for one that is fetched later; undefined for that of a plain request. */
export function keptForm({ binaryOutput, id, outputs }: AnswerForm): ResponseForm | undefined {
  if (id === undefined && outputs === null && !binaryOutput) return undefined;
  const form: ResponseForm = {};
  if (id !== undefined) form.i = id;
  if (outputs !== null) form.o = outputs.map(({ binary, name }) => [name, binary ? 1 : 0]);
  if (binaryOutput) form.b = 1;
  return form;
}

/** The form that was kept. */
export const formOf = (kept: ResponseForm | undefined): AnswerForm => ({
  id: kept?.i,
  outputs: kept?.o?.map(([name, binary]) => ({ name, binary: binary === 1 })) ?? null,
  binaryOutput: kept?.b === 1,
});

/** The form that a request asks for. */
export const requestedForm = ({ binaryOutput, id, outputs }: InferRequest): AnswerForm => ({
  id,
  outputs,
  binaryOutput,
});

/** Makes the answer of a model's output tensors; those that were asked for, in the order of asking. */
export function inferAnswer(
  model: { name: string; version: string },
  form: AnswerForm,
  tensors: readonly PackedTensor[],
): InferAnswer {
  const wanted = form.outputs ?? tensors.map(({ name }) => ({ name, binary: form.binaryOutput }));
  const outputs = wanted.flatMap(({ binary, name }) => {
    const tensor = tensors.find((candidate) => candidate.name === name);
    return tensor === undefined ? [] : [{ binary, tensor }];
  });
  const bytesOf = (binary: boolean) => outputs.filter((output) => output.binary === binary);
  return {
    json: answerText(model, form.id, outputs),
    jsonTensorBytes: bytesOf(false).reduce((sum, { tensor }) => sum + tensor.bytes.length, 0),
    binary: bytesOf(true).map(({ tensor }) => tensor.bytes),
  };
}

function* answerText(
  { name, version }: { name: string; version: string },
  id: string | undefined,
  outputs: readonly { binary: boolean; tensor: PackedTensor }[],
): Generator<string> {
  const head = { ...(id !== undefined && { id }), model_name: name, model_version: version };
  yield `${JSON.stringify(head).slice(0, -1)},"outputs":[`;
  for (const [i, { binary, tensor }] of outputs.entries()) {
    const about = { name: tensor.name, datatype: datatypeOf[tensor.dtype], shape: tensor.shape };
    const start = `${i === 0 ? "" : ","}${JSON.stringify(about).slice(0, -1)}`;
    if (binary) yield `${start},"parameters":{"binary_data_size":${tensor.bytes.length}}}`;
    else {
      yield `${start},"data":`;
      yield* tensorText(tensor, { flat: true, bigAsText: false });
      yield "}";
    }
  }
  yield "]}";
}

/** Pieces of text as one buffer, with turns of the event loop in between. */
export async function gathered(pieces: Iterable<string>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const piece of pieces) {
    parts.push(Buffer.from(piece));
    if (piece.length >= 16_384) await nextTurn();
  }
  return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
}
