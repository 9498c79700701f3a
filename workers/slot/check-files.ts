import { join } from "node:path";
import { listVersionFiles } from "@millrace/shared/models/version-files.js";
import { allTensors, type OnnxModel, readOnnx } from "../graph/read-onnx.js";
import type { LoadRequest } from "../runs/load-request.js";

/** No message of Protocol Buffers is larger; what a larger model is made of lies in external data. */
const largestOnnxBytes = 2 ** 31;

/**
 * Reads a version's ONNX files, by their paths in its folder. Throws where one is too large to be one or is damaged, or
 * where its external data are not the version's own.
 */
export async function readOnnxFiles({ folder, manifest }: LoadRequest): Promise<Map<string, OnnxModel>> {
  const files = await listVersionFiles(folder);
  const names = new Set(files.map(({ path }) => path));
  if (manifest.output.head !== "ensemble" && !names.has("model.onnx")) throw new Error("it has no model.onnx");
  const models = new Map<string, OnnxModel>();
  for (const { path, size } of files) {
    if (!path.endsWith(".onnx")) continue;
    if (size > largestOnnxBytes) throw new Error(`${path} has more than ${largestOnnxBytes} bytes`);
    const model = readModel(join(folder, path));
    for (const location of externalDataPaths(model)) {
      const fault = locationFault(location, names);
      if (fault !== null) throw new Error(fault);
    }
    models.set(path, model);
  }
  return models;
}

function readModel(file: string): OnnxModel {
  try {
    return readOnnx(file);
  } catch (fault) {
    throw new Error(`the ONNX file cannot be loaded: ${(fault as Error).message}`);
  }
}

/** The files outside the ONNX file that its tensors say their data are in. */
function externalDataPaths(model: OnnxModel): Set<string> {
  const paths = new Set<string>();
  for (const { location } of allTensors(model)) if (location !== null) paths.add(location);
  return paths;
}

/** Why a location in an ONNX file may not be followed; null where it is a plain path below the version's folder. */
function locationFault(location: string, files: ReadonlySet<string>): string | null {
  const said = JSON.stringify(location.slice(0, 200));
  const segments = location.split("/");
  const strange = location === "" || /[\\\0]/.test(location) || location.startsWith("/") || /^[A-Za-z]:/.test(location);
  if (strange || segments.includes("..")) return `its external data ${said} leave the version's folder`;
  const path = segments.filter((segment) => segment !== "." && segment !== "").join("/");
  return files.has(path) ? null : `its external data ${said} are not among the version's files`;
}
