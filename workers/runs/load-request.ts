import type { Joining, TensorSpec } from "@millrace/shared/models/announcement.js";
import type { Manifest } from "@millrace/shared/models/manifest.js";

/** What a slot is told to load; `key` names it in the runs that follow. */
export interface LoadRequest {
  key: number;
  model: string;
  version: string;
  /** The version's folder and the ONNX file in it. */
  folder: string;
  file: string;
  /** What the folder's bytes were when they were looked at; a slot that finds others refuses them. */
  digest: string;
  manifest: Manifest;
}

/** A request as a slot is given it. */
export interface LoadOrder extends LoadRequest {
  /** Whether it may be tried with made inputs; not where one has killed the process before. */
  triesMade: boolean;
}

/** What a slot has found of a version that it loaded. */
export interface LoadedFacts {
  inputs: TensorSpec[];
  outputs: TensorSpec[];
  joining: Joining;
  /** The proof says one thing and a run another: the proof has a fault, and nothing is joined. */
  proofFault: boolean;
  /** The graph draws random numbers. */
  drawsNumbers: boolean;
}

/** What a slot says of a version: what it has found, or why it cannot be served; `died`: it could not even say that. */
export type LoadReply =
  | ({ key: number; ok: true } & LoadedFacts)
  | { key: number; ok: false; reason: string; died?: boolean };
