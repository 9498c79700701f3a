import type { Joining, TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";

/** A version to load; `key` names it in later runs. */
export interface LoadRequest {
  key: number;
  model: string;
  version: string;
  /** The version's folder and the ONNX file in it. */
  folder: string;
  file: string;
  /** Digest of the folder's files when they were read; a slot refuses files with another digest. */
  digest: string;
  manifest: Manifest;
}

/** A request as a slot receives it. */
export interface LoadOrder extends LoadRequest {
  /** Whether the version may be tried with made inputs; false once one has killed the process. */
  triesMade: boolean;
}

/** Facts about a loaded version. */
export interface LoadedFacts {
  inputs: TensorSpec[];
  outputs: TensorSpec[];
  joining: Joining;
  /** A run contradicts the proof, so the proof has a fault, and nothing is joined. */
  proofFault: boolean;
  /** The graph draws random numbers. */
  drawsNumbers: boolean;
}

/** A slot's reply: facts, or the reason why the version cannot be served; `died`: the process died without a reply. */
export type LoadReply =
  | ({ key: number; ok: true } & LoadedFacts)
  | { key: number; ok: false; reason: string; died?: boolean };
