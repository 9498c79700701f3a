import {
  axesOf,
  boundsOf,
  expectFixed,
  fixed,
  fromStart,
  has,
  newDims,
  type Operation,
  type Rule,
  rows,
  shaped,
  UnprovenError,
  withDims,
} from "./abstract-tensor.js";
import { numberIn, type Size, sameSize, sizeOf, times } from "./sizes.js";

/** Adds entries along axes other than the row axis. */
const pad: Rule = (operation) => {
  const data = shaped(operation, 0);
  const rank = data.dims.length;
  expectFixed(operation, 2);
  const before =
    operation.opset < 11
      ? (operation.numbers("pads") ?? operation.numbers("paddings"))
      : boundsOf(operation, 1, 2 * rank);
  const axes = (operation.opset < 18 ? null : axesOf(operation, 3, rank)) ?? data.dims.map((_, d) => d);
  const dims = data.dims.map((length, d) => {
    const i = axes.indexOf(d);
    if (i < 0) return length;
    const [start, end] = [before?.[i], before?.[i + axes.length]];
    if (start === 0 && end === 0) return length;
    if (data.kind === "rows" && d === data.axis) throw new UnprovenError("it pads the row axis, or may");
    const known = numberIn(length);
    return known === null || start == null || end == null ? operation.newLength() : sizeOf(known + start + end);
  });
  return withDims(data, dims, data.kind === "rows" ? data.axis : 0);
};

/** Scales images along axes other than the row axis. */
const resize: Rule = (operation) => {
  const data = shaped(operation, 0);
  const rank = data.dims.length;
  if (data.kind === "fixed") return fixed(newDims(operation, rank));
  if (operation.text("keep_aspect_ratio_policy", "stretch") !== "stretch")
    throw new UnprovenError("it keeps the aspect ratio");
  if (operation.text("coordinate_transformation_mode", "half_pixel") === "tf_crop_and_resize") {
    throw new UnprovenError("it crops while it scales");
  }
  const axes = (operation.numbers("axes") ?? data.dims.map((_, d) => d)).map((axis) => fromStart(axis, rank));
  const own = axes.indexOf(data.axis);
  const places = operation.type === "Upsample" ? [1, null] : operation.opset < 11 ? [1, null] : [2, 3];
  const scales = operation.numbers("scales") ?? listAt(operation, places[0] ?? null)?.map(numberIn) ?? [];
  const sizes = listAt(operation, places[1] ?? null) ?? [];
  const apart =
    own < 0 ||
    (sizes.length > 0
      ? sameSize(sizes[own] as Size, data.dims[data.axis] as Size)
      : scales.length > 0 && scales[own] === 1);
  if (!apart) throw new UnprovenError("it scales the row axis, or may");
  if (has(operation, 1) && operation.type === "Resize" && operation.opset >= 11) expectFixed(operation, 1);
  const dims = data.dims.map((length, d) =>
    d === data.axis || !axes.includes(d) ? length : scaled(operation, length, axes.indexOf(d), scales, sizes),
  );
  return rows(dims, data.axis);
};

function scaled(
  operation: Operation,
  length: Size,
  i: number,
  scales: readonly (number | null)[],
  sizes: readonly Size[],
): Size {
  const said = sizes[i];
  if (said !== undefined) return numberIn(said) === null ? operation.newLength() : said;
  const [known, scale] = [numberIn(length), scales[i]];
  // Fractions are rounded in ways that differ by mode.
  return known === null || scale == null || !Number.isInteger(known * scale)
    ? operation.newLength()
    : sizeOf(known * scale);
}

/** The elements of a fixed input, where given. */
function listAt(operation: Operation, i: number | null): readonly Size[] | null {
  const value = i === null ? null : operation.inputs[i];
  if (value == null) return null;
  if (value.kind !== "fixed") throw new UnprovenError("it scales by numbers of the rows");
  return value.elements;
}

/** Moves blocks of an image into channels, or back; the first axis stays. */
const blocks: Rule = (operation) => {
  const data = shaped(operation, 0);
  const side = operation.int("blocksize", 1);
  if (data.kind === "rows" && data.axis !== 0) throw new UnprovenError("its rows do not lie along the first axis");
  const [first, channels, ...sides] = data.dims as [Size, Size, ...Size[]];
  const toDepth = operation.type === "SpaceToDepth";
  const scale = (size: Size, up: boolean, by: number): Size => {
    const known = numberIn(size);
    if (up) return times(size, sizeOf(by));
    return known === null ? operation.newLength() : sizeOf(Math.floor(known / by));
  };
  const dims = [first, scale(channels, toDepth, side * side), ...sides.map((size) => scale(size, !toDepth, side))];
  return withDims(data, dims, 0);
};

/** Operators that pad, scale or rearrange the dimensions after the rows, as for images. */
export const pictureRules: Record<string, Rule> = {
  Pad: pad,
  Resize: resize,
  Upsample: resize,
  DepthToSpace: blocks,
  SpaceToDepth: blocks,
};
