import { z } from "zod";
import { plainFileName } from "./manifest-input.js";

const label = z.string().min(1).max(200);
const unique = (values: readonly string[]) => new Set(values).size === values.length;
const labels = (least: number) =>
  z.array(label).min(least).max(100_000).refine(unique, { error: "must not repeat themselves" });

export const classifierHead = z.strictObject({
  head: z.literal("classifier"),
  probabilities: z.string().min(1).describe("Output tensor of shape [rows, classes], float"),
  labels: labels(2).describe("One for each class, in order"),
  activation: z
    .enum(["softmax", "sigmoid", "none"])
    .optional()
    .describe(
      "Makes probabilities of the tensor's values: softmax over the classes, sigmoid of each, or none: they are " +
        "given unchanged. Without it they must be probabilities: 0 to 1, and 1 together",
    ),
});

const multiLabelHead = z
  .strictObject({
    head: z.literal("multi_label"),
    probabilities: z.string().min(1).describe("Output tensor of shape [rows, labels], float, 0 to 1 each"),
    labels: labels(1).describe("One for each column, in order"),
    threshold: z
      .union([z.number(), z.array(z.number())])
      .default(0.5)
      .describe("A label is given from here on; one for all, or one for each"),
  })
  .refine(({ labels, threshold }) => !Array.isArray(threshold) || threshold.length === labels.length, {
    error: "needs one threshold for each label",
    path: ["threshold"],
  });

const regressorHead = z.strictObject({
  head: z.literal("regressor"),
  value: z.string().min(1).describe("Output tensor of shape [rows] or [rows, 1]; [rows, targets] where they are named"),
  targets: labels(1)
    .optional()
    .describe("One for each column, in order; the output is then { values: { target: number } }"),
});

export const anomalyHead = z.strictObject({
  head: z.literal("anomaly"),
  score: z.string().min(1).describe("Output tensor of shape [rows] or [rows, 1]; higher is stranger"),
  threshold: z.number().describe("An anomaly from here on"),
});

export const rawHead = z.strictObject({ head: z.literal("raw") });

const says = z
  .record(label, label.nullable())
  .describe("The ensemble's label for each of the member's own; null: abstain");

const member = {
  name: z.string().min(1).max(100),
  weight: z.number().positive().default(1),
};

const flagged = {
  anomaly: label.describe("Label for an anomaly"),
  normal: label.nullable().default(null).describe("Label for a non-anomaly; null: abstain"),
  scale: z
    .number()
    .positive()
    .default(1)
    .describe("The anomaly's confidence is the logistic function of (score - threshold) / scale"),
};

const expression = z
  .string()
  .min(1)
  .max(2000)
  .describe(
    'Common Expression Language over the features: f["Flow Duration"] > 1000.0 && f["Total Fwd Packets"] < 3.0',
  );

const baseline = z.strictObject({
  feature: z.string().min(1),
  mean: z.number(),
  std: z.number().positive(),
  log: z.boolean().default(false).describe("Whether mean and deviation are of log1p of the magnitude, with its sign"),
});

const classifierMember = z.strictObject({
  ...member,
  kind: z.literal("classifier"),
  file: plainFileName.describe("ONNX file in the version's folder, which takes the ensemble's input tensor"),
  probabilities: classifierHead.shape.probabilities,
  labels: classifierHead.shape.labels,
  says: says.optional().describe("Without it, the member's labels are the ensemble's own"),
});

const anomalyMember = z.strictObject({
  ...member,
  kind: z.literal("anomaly"),
  file: plainFileName.describe("ONNX file in the version's folder, which takes the ensemble's input tensor"),
  score: anomalyHead.shape.score,
  threshold: anomalyHead.shape.threshold,
  ...flagged,
});

const rulesMember = z.strictObject({
  ...member,
  kind: z.literal("rules"),
  rules: z
    .array(
      z.strictObject({
        when: expression,
        label,
        confidence: z.number().min(0).max(1).default(1),
      }),
    )
    .min(1)
    .max(1000)
    .describe("The first matching rule votes; without one the member abstains"),
});

const statisticsMember = z
  .strictObject({
    ...member,
    kind: z.literal("statistics"),
    method: z
      .enum(["z_score", "mahalanobis"])
      .describe("z_score: the largest distance of any feature, in deviations; mahalanobis: of all, by `precision`"),
    baselines: z.array(baseline).min(1).max(1000),
    precision: z
      .array(z.array(z.number()))
      .optional()
      .describe("Inverse of the correlation matrix of the baselines, for mahalanobis"),
    threshold: z.number().positive().describe("An anomaly from here on"),
    ...flagged,
  })
  .superRefine(({ baselines, method, precision }, context) => {
    const square = precision?.length === baselines.length && precision.every((row) => row.length === baselines.length);
    if (method === "mahalanobis" ? !square : precision !== undefined) {
      const message = method === "mahalanobis" ? "needs a row and a column for each baseline" : "only for mahalanobis";
      context.addIssue({ code: "custom", path: ["precision"], message });
    }
  });

/** Members that speak about one input, and how their say becomes one answer. */
export const ensembleHead = z
  .strictObject({
    head: z.literal("ensemble"),
    labels: labels(2),
    members: z
      .array(z.discriminatedUnion("kind", [classifierMember, anomalyMember, rulesMember, statisticsMember]))
      .min(1)
      .max(100),
    vote: z
      .strictObject({
        method: z
          .enum(["soft", "hard"])
          .default("soft")
          .describe("soft: confidences by weight; hard: each member's label by weight"),
        min_margin: z
          .number()
          .min(0)
          .max(1)
          .default(0)
          .describe("Below this lead of the first label over the second, the ensemble abstains"),
      })
      .prefault({}),
  })
  .superRefine(({ labels, members }, context) => {
    const names = new Set<string>();
    members.forEach((entry, i) => {
      const complain = (path: (string | number)[], message: string) =>
        context.addIssue({ code: "custom", path: ["members", i, ...path], message });
      const known = (path: (string | number)[], said: string | null) => {
        if (said !== null && !labels.includes(said)) complain(path, `"${said}" is no label of the ensemble`);
      };
      if (names.has(entry.name)) complain(["name"], `there are two members "${entry.name}"`);
      names.add(entry.name);
      if (entry.kind === "rules") {
        entry.rules.forEach((rule, k) => {
          known(["rules", k, "label"], rule.label);
        });
      } else if (entry.kind === "classifier") {
        for (const own of entry.labels) {
          if (entry.says === undefined) known(["labels"], own);
          else if (!Object.hasOwn(entry.says, own)) complain(["says"], `does not say what "${own}" stands for`);
        }
        for (const [own, said] of Object.entries(entry.says ?? {})) known(["says", own], said);
      } else {
        known(["anomaly"], entry.anomaly);
        known(["normal"], entry.normal);
      }
    });
  });

/** The heads, all of which read one model's output tensors. */
export const outputSchema = z.discriminatedUnion("head", [
  classifierHead,
  multiLabelHead,
  regressorHead,
  anomalyHead,
  rawHead,
]);

/** As `outputSchema`, and what only a tabular model can have. */
export const tabularOutputSchema = z.discriminatedUnion("head", [
  classifierHead,
  multiLabelHead,
  regressorHead,
  anomalyHead,
  rawHead,
  ensembleHead,
]);

export type Output = z.infer<typeof tabularOutputSchema>;
export type Ensemble = z.infer<typeof ensembleHead>;
export type EnsembleMember = Ensemble["members"][number];
