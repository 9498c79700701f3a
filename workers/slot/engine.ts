import { dirname, join } from "node:path";
import type { TensorSpec } from "@millrace/shared/models/announcement.js";
import type { TabularManifest } from "@millrace/shared/models/manifest.js";
import type { Ensemble } from "@millrace/shared/models/manifest-output.js";
import { InferenceSession, type Tensor } from "onnxruntime-node";
import type { LoadRequest } from "../runs/load-request.js";
import { outOfMemoryExit, tellsOfMemory } from "../runs/slot-command.js";
import { describeTensors } from "./describe-model.js";
import { readableFault } from "./engine-fault.js";
import { missingLocale } from "./missing-locale.js";

export type Tensors = Readonly<Record<string, Tensor>>;

/** Turns input tensors into output tensors: the session of one ONNX file, or the sessions of an ensemble. */
export interface Engine {
  inputs: TensorSpec[];
  outputs: TensorSpec[];
  run(feeds: Record<string, Tensor>): Promise<Tensors>;
  close(): Promise<void>;
}

/** Loads the ONNX files of a version. Rejects with a reason that names no path. */
export async function openEngine({ file, manifest }: LoadRequest): Promise<Engine> {
  if (manifest.output.head === "ensemble") {
    return openMembers(dirname(file), manifest as TabularManifest, manifest.output);
  }
  const session = await openSession(file, "model.onnx");
  try {
    return {
      inputs: describeTensors(session.inputMetadata, "input"),
      outputs: describeTensors(session.outputMetadata, "output"),
      run: (feeds) => runSession(session, feeds),
      close: () => session.release(),
    };
  } catch (fault) {
    await session.release();
    throw fault;
  }
}

/**
 * The ONNX files among an ensemble's members, fed with one tensor. Outputs are named `<member>/<tensor>`; the input is
 * passed on among them, for members without an ONNX file.
 */
async function openMembers(folder: string, manifest: TabularManifest, ensemble: Ensemble): Promise<Engine> {
  const { derived, features, tensor } = manifest.input;
  const input: TensorSpec = { name: tensor, dtype: "float32", shape: ["", features.length + derived.length] };
  const sessions: { name: string; session: InferenceSession }[] = [];
  const outputs: TensorSpec[] = [];
  const close = async () => {
    await Promise.all(sessions.map(({ session }) => session.release()));
  };
  try {
    for (const member of ensemble.members) {
      if (!("file" in member)) continue;
      const session = await openSession(join(folder, member.file), member.file);
      sessions.push({ name: member.name, session });
      const [own, ...more] = describeTensors(session.inputMetadata, "input");
      const width = own?.shape[1];
      const fits =
        own?.name === tensor &&
        own.dtype === "float32" &&
        own.shape.length === 2 &&
        typeof own.shape[0] === "string" &&
        (typeof width === "string" || width === input.shape[1]);
      if (!fits || more.length > 0) {
        throw new Error(`${member.file} must take one input "${tensor}", float32 [rows, ${input.shape[1]}]`);
      }
      for (const spec of describeTensors(session.outputMetadata, "output")) {
        outputs.push({ ...spec, name: `${member.name}/${spec.name}` });
      }
    }
  } catch (fault) {
    await close();
    throw fault;
  }
  return {
    inputs: [input],
    outputs,
    async run(feeds) {
      const all: Record<string, Tensor> = { ...feeds };
      for (const { name, session } of sessions) {
        const own = await runSession(session, feeds);
        for (const [output, value] of Object.entries(own)) all[`${name}/${output}`] = value;
      }
      return all;
    },
    close,
  };
}

/**
 * One run. Rejects with a reason that a caller may read. Without memory for it the process ends: what the run had got
 * so far may stay taken, and the next run, of another input, would fail for want of it.
 */
async function runSession(session: InferenceSession, feeds: Record<string, Tensor>): Promise<Tensors> {
  try {
    return (await session.run(feeds)) as unknown as Tensors;
  } catch (fault) {
    const { message } = fault as Error;
    if (tellsOfMemory(message)) process.exit(outOfMemoryExit);
    throw new Error(readableFault(message), { cause: fault });
  }
}

/** Options of every session. Slots are scaled by their number, so each computes in one thread. */
export const sessionOptions = {
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: "sequential",
  logSeverityLevel: 4,
} as const;

function openSession(file: string, name: string): Promise<InferenceSession> {
  return InferenceSession.create(file, sessionOptions).catch((fault: Error) => {
    const reason = missingLocale(fault.message) ?? readableFault(fault.message, file, name);
    throw new Error(`the ONNX file cannot be loaded: ${reason}`);
  });
}
