import { open } from "node:fs/promises";

/** A model file of another format: its name in words, and how its own library makes ONNX of it. */
export interface ForeignModel {
  what: string;
  remedy: string;
}

const headBytes = 64 * 1024;

const remedies = {
  sklearn:
    'scikit-learn: skl2onnx.to_onnx(model, X[:1].astype("float32")), for classifiers with options={"zipmap": False}',
  lightgbm: "LightGBM: onnxmltools.convert_lightgbm(model, initial_types=..., zipmap=False)",
  xgboost: "XGBoost: onnxmltools.convert_xgboost(model, initial_types=...)",
  catboost: 'CatBoost: model.save_model("model.onnx", format="onnx")',
  torch: 'PyTorch: torch.onnx.export(model, (example,), "model.onnx") with a free first dimension',
  torchScript:
    'PyTorch: torch.onnx.export(model, (example,), "model.onnx"), where model is the module that was scripted; ' +
    "where only the TorchScript file is left, torch.jit.load reads it",
  keras: 'Keras: model.export("model.onnx", format="onnx")',
  tensorflow: "TensorFlow: python -m tf2onnx.convert --saved-model <folder> --output model.onnx",
} as const;

type Library = keyof typeof remedies;

/** The ways to ONNX of every library that is named, for a file whose library is not known. */
export const everyRemedy = [remedies.sklearn, remedies.lightgbm, remedies.xgboost, remedies.catboost, remedies.torch]
  .join("; ")
  .concat("; Keras: model.export");

/** Modules by which a pickle is of a library, the most special first: wrappers of boosters are scikit-learn's too. */
const modules: readonly [string, Library, string][] = [
  ["lightgbm", "lightgbm", "LightGBM"],
  ["xgboost", "xgboost", "XGBoost"],
  ["catboost", "catboost", "CatBoost"],
  ["torch", "torch", "PyTorch"],
  ["sklearn", "sklearn", "scikit-learn"],
];

const known = (what: string, library: Library): ForeignModel => ({ what, remedy: remedies[library] });

/** The first bytes of a file, enough for `recognizeForeign`; none where it cannot be read. */
export async function readHead(file: string): Promise<Buffer> {
  try {
    const handle = await open(file, "r");
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(headBytes), 0, headBytes, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch {
    return Buffer.alloc(0);
  }
}

/** Whether a name alone makes a file worth a look at its content. */
export const mayBeForeign = (name: string): boolean =>
  /\.(pkl|pickle|joblib|pt|pth|ckpt|bin|safetensors|h5|hdf5|keras|pb|tflite|cbm|ubj|bst|xgb|lgb|json|txt|model)$/i.test(
    name,
  );

/**
 * The format of a model file that is not ONNX, by its first bytes and then by its name; null for all else. Nothing of
 * the file is run or unpacked.
 */
export function recognizeForeign(name: string, head: Buffer): ForeignModel | null {
  return byContent(head) ?? byName(name.toLowerCase());
}

function byContent(head: Buffer): ForeignModel | null {
  const text = head.toString("latin1");
  if (head[0] === 0x80 && [2, 3, 4, 5].includes(head[1] as number)) return pickle(text);
  if (text.startsWith("PK\x03\x04")) {
    if (/constants\.pkl|\/code\//.test(text)) return known("a TorchScript file", "torchScript");
    if (/data\.pkl|\.data\/|archive\//.test(text)) return known("a file of torch.save", "torch");
    return text.includes("model.weights.h5") ? known("a Keras file", "keras") : null;
  }
  if (text.startsWith("\x89HDF")) return known("a Keras file (HDF5)", "keras");
  if (text.startsWith("CBM1")) return known("a CatBoost file", "catboost");
  if (/^tree\r?\nversion=/.test(text)) return known("a LightGBM text file", "lightgbm");
  if (text.startsWith("binf") || /^\{L.{0,16}learner/s.test(text)) return known("an XGBoost file", "xgboost");
  if (/^\s*\{/.test(text)) {
    const start = text.slice(0, 4096);
    if (/"learner"\s*:/.test(start)) return known("an XGBoost JSON file", "xgboost");
    if (/"(oblivious_trees|features_info|ctr_data)"\s*:/.test(start)) return known("a CatBoost JSON file", "catboost");
    if (/"tree_info"\s*:|"feature_infos"\s*:/.test(start)) return known("a LightGBM JSON file", "lightgbm");
  }
  return null;
}

function pickle(text: string): ForeignModel {
  const found = modules.find(([module]) => text.includes(module));
  if (found === undefined) return { what: "a Python pickle, which runs code when it is opened", remedy: everyRemedy };
  const [, library, title] = found;
  return known(`a pickle of ${title}, which runs code when it is opened`, library);
}

function byName(name: string): ForeignModel | null {
  if (/\.(pkl|pickle|joblib)$/.test(name)) {
    return { what: "a Python pickle, which runs code when it is opened", remedy: everyRemedy };
  }
  if (/\.(pt|pth|ckpt|safetensors)$|^pytorch_model.*\.bin$/.test(name)) return known("a PyTorch file", "torch");
  if (/\.(h5|hdf5|keras)$/.test(name)) return known("a Keras file", "keras");
  if (/^saved_model\.pb$|\.tflite$/.test(name)) return known("a TensorFlow file", "tensorflow");
  if (name.endsWith(".cbm")) return known("a CatBoost file", "catboost");
  if (/\.(ubj|bst|xgb)$/.test(name)) return known("an XGBoost file", "xgboost");
  return name.endsWith(".lgb") ? known("a LightGBM file", "lightgbm") : null;
}
