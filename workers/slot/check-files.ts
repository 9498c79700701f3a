import { join } from "node:path";
import { everyRemedy, readHead, recognizeForeign } from "@millrace/shared/models/foreign-model.js";
import { listVersionFiles } from "@millrace/shared/models/version-files.js";
import { allTensors, type OnnxModel, readOnnx } from "../graph/read-onnx.js";
import type { LoadRequest } from "../runs/load-request.js";

/** Limit of a Protocol Buffers message; the tensors of larger models lie in external data files. */
const largestOnnxBytes = 2 ** 31;
/** Files that are looked at for a model of another format. */
const mostHeads = 100;

/**
 * Reads a version's ONNX files, by path in its folder. Throws for a file over the size limit, a damaged file, and
 * external data outside the version's own files.
 */
export async function readOnnxFiles({ folder, manifest }: LoadRequest): Promise<Map<string, OnnxModel>> {
  const files = await listVersionFiles(folder);
  const names = new Set(files.map(({ path }) => path));
  if (manifest.output.head !== "ensemble" && !names.has("model.onnx")) {
    throw new Error(await missingFault(folder, [...names]));
  }
  const models = new Map<string, OnnxModel>();
  for (const { path, size } of files) {
    if (!path.endsWith(".onnx")) continue;
    if (size > largestOnnxBytes) {
      throw new Error(`${path} is larger than ${largestOnnxBytes} bytes: move its weights to external data files`);
    }
    const model = await readModel(join(folder, path), path);
    for (const location of externalDataPaths(model)) {
      const fault = locationFault(location, names);
      if (fault !== null) throw new Error(fault);
    }
    models.set(path, model);
  }
  return models;
}

async function readModel(file: string, path: string): Promise<OnnxModel> {
  try {
    return readOnnx(file);
  } catch (fault) {
    const foreign = recognizeForeign("", await readHead(file));
    if (foreign !== null) {
      throw new Error(`${path} is ${foreign.what}, under the name of an ONNX file. Export it: ${foreign.remedy}`);
    }
    throw new Error(
      `the ONNX file cannot be loaded: ${(fault as Error).message}. Copy it again, or export it again: ${everyRemedy}`,
    );
  }
}

/** What to do in a version without `model.onnx`, by the files that it has. */
async function missingFault(folder: string, paths: readonly string[]): Promise<string> {
  const onnx = paths.filter((path) => path.endsWith(".onnx"));
  if (onnx.length === 1) return `it has no model.onnx: rename ${onnx[0]} to model.onnx`;
  for (const path of paths.slice(0, mostHeads)) {
    const foreign = recognizeForeign(path.slice(path.lastIndexOf("/") + 1), await readHead(join(folder, path)));
    if (foreign === null) continue;
    return `it has no model.onnx, but ${path}, which is ${foreign.what}. Export it to model.onnx: ${foreign.remedy}`;
  }
  return "it has no model.onnx: put model.onnx into <model>/<version>/";
}

/** Locations of the tensors' external data, as written in the ONNX file. */
function externalDataPaths(model: OnnxModel): Set<string> {
  const paths = new Set<string>();
  for (const { location } of allTensors(model)) if (location !== null) paths.add(location);
  return paths;
}

/** The fault of an external data location; null for a plain path of a file of the version. */
function locationFault(location: string, files: ReadonlySet<string>): string | null {
  const said = JSON.stringify(location.slice(0, 200));
  const segments = location.split("/");
  const strange = location === "" || /[\\\0]/.test(location) || location.startsWith("/") || /^[A-Za-z]:/.test(location);
  if (strange || segments.includes("..")) return `its external data ${said} leave the version's folder`;
  const path = segments.filter((segment) => segment !== "." && segment !== "").join("/");
  return files.has(path) ? null : `its external data ${said} are not among the version's files`;
}
