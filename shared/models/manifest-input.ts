import { z } from "zod";
import { parseDate } from "./parse-date.js";

/** A file name in a version's own folder; never a path, so that it cannot lead outside. */
export const plainFileName = z
  .string()
  .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/, "must be the plain name of a file in the version's folder");

const number = z.number();
const nameOf = (what: string) => z.string().min(1).max(200).describe(what);

const featureFields = z
  .strictObject({
    name: nameOf("The field of an input that holds it"),
    description: z.string().optional(),
    type: z
      .enum(["number", "category", "date"])
      .default("number")
      .describe("category: one of `values`, packed as its position; date: an RFC 3339 date or time, packed as `part`"),
    min: number.optional().describe("Smallest number that is taken"),
    max: number.optional().describe("Largest number that is taken"),
    values: z.array(z.string().min(1)).min(1).max(10_000).optional().describe("What a category may be, in order"),
    part: z
      .enum(["second_of_day", "day_of_week", "epoch_days"])
      .optional()
      .describe("Part of a date, in UTC; default second_of_day; Monday is 0"),
    default: z
      .union([number, z.string()])
      .optional()
      .describe("Stands in where an object lacks the field or an array has null"),
  })
  .superRefine((feature, context) => {
    const complain = (field: string, message: string) =>
      context.addIssue({ code: "custom", path: [field], message, input: feature });
    const { type, min, max, values, part } = feature;
    if (type === "category" && values === undefined) complain("values", "a category needs the list of its values");
    if (type !== "category" && values !== undefined) complain("values", 'only for features of type "category"');
    if (type !== "date" && part !== undefined) complain("part", 'only for features of type "date"');
    if (type !== "number" && (min ?? max) !== undefined) {
      complain(min === undefined ? "max" : "min", 'only for features of type "number"');
    }
    if (min !== undefined && max !== undefined && min > max) complain("max", "must not be below min");
    if (values !== undefined && new Set(values).size < values.length) complain("values", "must not repeat themselves");
    if (feature.default === undefined) return;
    if (type === "number") {
      if (typeof feature.default !== "number") complain("default", "must be a number, as the feature is");
      else if (feature.default < (min ?? -Infinity) || feature.default > (max ?? Infinity)) {
        complain("default", "must be between min and max");
      }
    } else if (typeof feature.default !== "string") complain("default", "must be a string, as the feature is");
    else if (type === "category" && values !== undefined && !values.includes(feature.default)) {
      complain("default", "must be one of values");
    } else if (type === "date" && Number.isNaN(parseDate(feature.default))) {
      complain("default", "must be an RFC 3339 date that exists");
    }
  });

const derivedFeature = z.strictObject({
  name: nameOf("What it is called; later ones may be derived from it"),
  description: z.string().optional(),
  op: z
    .enum(["ratio", "share", "sum", "difference", "product", "mean", "min", "max", "entropy", "log1p", "sin", "cos"])
    .describe(
      "ratio: a/b, 0 where b is 0; share: the first of the sum of all; entropy: of the magnitudes as shares, in " +
        "bits; " +
        "log1p: keeps the sign; sin, cos: of a turn each `period`",
    ),
  of: z.array(z.string().min(1)).min(1).max(1000).describe("Features, or derived ones that come before"),
  scale: number.optional().describe("The result is multiplied by it; default 1"),
  period: z.number().positive().optional().describe("Of sin and cos, in units of the feature"),
});

const operands: Partial<Record<z.infer<typeof derivedFeature>["op"], number>> = {
  ratio: 2,
  difference: 2,
  log1p: 1,
  sin: 1,
  cos: 1,
};

/** Input of a tabular model: columns in tensor order, and those that a slot computes from them. */
export const tabularInputSchema = z
  .strictObject({
    tensor: nameOf("Input tensor of shape [rows, features and derived], float32"),
    features: z
      .array(z.union([nameOf("A number by this name"), featureFields]))
      .min(1)
      .max(100_000),
    derived: z
      .array(derivedFeature)
      .max(10_000)
      .default([])
      .describe("Columns after the features, computed from them before each run"),
  })
  .superRefine(({ derived, features }, context) => {
    const known = new Set<string>();
    const add = (list: string, i: number, name: string) => {
      if (known.has(name)) {
        context.addIssue({ code: "custom", path: [list, i], message: `Duplicate feature "${name}".` });
      }
      known.add(name);
    };
    features.forEach((entry, i) => {
      add("features", i, typeof entry === "string" ? entry : entry.name);
    });
    derived.forEach(({ name, of, op, period }, i) => {
      const complain = (path: (string | number)[], message: string) =>
        context.addIssue({ code: "custom", path: ["derived", i, ...path], message });
      of.forEach((operand, k) => {
        if (!known.has(operand)) complain(["of", k], `there is no feature "${operand}" before this one`);
      });
      const wanted = operands[op];
      if (wanted !== undefined && of.length !== wanted) complain(["of"], `${op} takes ${wanted}, not ${of.length}`);
      if ((period !== undefined) !== (op === "sin" || op === "cos")) {
        complain(["period"], period === undefined ? `${op} needs a period` : `${op} has no period`);
      }
      add("derived", i, name);
    });
  });

const tokenTensor = (values: string) =>
  z.string().min(1).optional().describe(`int32 or int64 tensor [rows, tokens]: ${values}`);

/** Input of a text model: the text itself, or the ids that a tokenizer makes of it. */
export const textInputSchema = z
  .strictObject({
    tensor: z.string().min(1).optional().describe("String tensor of shape [rows] or [rows, 1] that takes the text"),
    tokenizer: z
      .strictObject({
        file: plainFileName
          .default("tokenizer.json")
          .describe("Hugging Face tokenizer in the version's folder, read by the Rust library"),
        ids: z.string().min(1).default("input_ids").describe("int32 or int64 tensor [rows, tokens]"),
        mask: tokenTensor("1 for tokens, 0 for padding"),
        type_ids: tokenTensor("which of two texts a token is of, as the file says"),
        position_ids: tokenTensor("tokens counted from 0, padding 0"),
        max_tokens: z
          .int()
          .min(1)
          .max(32_768)
          .default(512)
          .describe(
            "A longer text is cut, special tokens kept: as the file's own truncation says, else at its end; the " +
              "file's own length holds where it is smaller",
          ),
        pad_id: z
          .int()
          .min(0)
          .optional()
          .describe("Pads each row to the longest of its run; default: as the file's own padding, else 0"),
        special_tokens: z.boolean().default(true).describe("Add the file's special tokens"),
      })
      .optional(),
    min_length: z.int().min(0).default(1).describe("In characters, after trimming; of each text of a pair"),
    max_length: z
      .int()
      .min(1)
      .max(1_000_000)
      .default(512)
      .describe("In characters, after trimming; of each text of a pair"),
  })
  .superRefine(({ max_length, min_length, tensor, tokenizer }, context) => {
    if ((tensor === undefined) === (tokenizer === undefined)) {
      context.addIssue({ code: "custom", path: [], message: "needs either tensor or tokenizer" });
    }
    const { ids, mask, position_ids, type_ids } = tokenizer ?? {};
    const names = [ids, mask, type_ids, position_ids].filter((name) => name !== undefined);
    if (new Set(names).size < names.length) {
      context.addIssue({ code: "custom", path: ["tokenizer"], message: "names one tensor twice" });
    }
    if (min_length > max_length) {
      context.addIssue({ code: "custom", path: ["max_length"], message: "must not be below min_length" });
    }
  });

export const imageFormats = ["jpeg", "png", "webp"] as const;

const perChannel = (preset: number) =>
  z
    .union([z.number(), z.array(z.number()).min(1).max(3)])
    .default(preset)
    .describe("One for all channels, or one for each");

/** Input of an image model: how a file becomes a tensor. */
export const imageInputSchema = z
  .strictObject({
    tensor: nameOf("Input tensor, float32 or uint8, of shape [rows, …] as `layout` says"),
    width: z.int().min(1).max(16_384).describe("Of the tensor, in pixels"),
    height: z.int().min(1).max(16_384).describe("Of the tensor, in pixels"),
    channels: z.enum(["rgb", "gray"]).default("rgb"),
    layout: z.enum(["nchw", "nhwc"]).default("nchw"),
    fit: z
      .enum(["fill", "cover", "contain", "crop"])
      .default("fill")
      .describe(
        "fill: stretched; cover: scaled and cut; contain: scaled with black borders; crop: the middle, cut on the " +
          "8-pixel grid of JPEG and never scaled, unless the image is too small",
      ),
    mean: perChannel(0).describe("Taken off each value, which is 0 to 1, before `std`"),
    std: perChannel(1).describe("Each value is divided by it, after `mean`"),
    formats: z
      .array(z.enum(imageFormats))
      .min(1)
      .default([...imageFormats]),
    max_bytes: z.int().min(1).max(1_073_741_824).default(10_000_000),
    max_pixels: z.int().min(1).max(268_435_456).default(25_000_000).describe("Of the file's own width times height"),
  })
  .superRefine(({ channels, mean, std }, context) => {
    const count = channels === "rgb" ? 3 : 1;
    for (const [field, values] of Object.entries({ mean, std })) {
      if (Array.isArray(values) && values.length !== count) {
        context.addIssue({ code: "custom", path: [field], message: `needs ${count}, one for each channel` });
      }
    }
    if ([std].flat().includes(0)) context.addIssue({ code: "custom", path: ["std"], message: "must not be 0" });
  });

export type TabularInput = z.infer<typeof tabularInputSchema>;
export type DerivedFeature = z.infer<typeof derivedFeature>;
export type TextInput = z.infer<typeof textInputSchema>;
export type ImageInput = z.infer<typeof imageInputSchema>;
