import { allTensors, type OnnxModel } from "./read-onnx.js";

/** The files outside the ONNX file that its tensors say their data are in. */
export function externalDataPaths(model: OnnxModel): Set<string> {
  const paths = new Set<string>();
  for (const { location } of allTensors(model)) if (location !== null) paths.add(location);
  return paths;
}

/** Why a location in an ONNX file may not be followed; null where it is a plain path below the version's folder. */
export function locationFault(location: string, files: ReadonlySet<string>): string | null {
  const said = JSON.stringify(location.slice(0, 200));
  const segments = location.split("/");
  const strange = location === "" || /[\\\0]/.test(location) || location.startsWith("/") || /^[A-Za-z]:/.test(location);
  if (strange || segments.includes("..")) return `its external data ${said} leave the version's folder`;
  const path = segments.filter((segment) => segment !== "." && segment !== "").join("/");
  return files.has(path) ? null : `its external data ${said} are not among the version's files`;
}
