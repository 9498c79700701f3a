"""Turns a fitted pipeline into a small ONNX graph of the shape that Millrace serves."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.pipeline import Pipeline
from xgboost import XGBClassifier

OPSETS = {"": 15, "ai.onnx.ml": 3}
IR_VERSION = 8
BATCH_DIMENSION = "N"

update_registered_converter(
    XGBClassifier,
    "XGBoostXGBClassifier",
    calculate_linear_classifier_output_shapes,
    convert_xgboost,
    options={"nocl": [True, False], "zipmap": [True, False]},
)


def export(pipeline: Pipeline, name: str, probe: np.ndarray) -> bytes:
    """
    The pipeline as ONNX: `features` float32 [N, F] to `label` int64 [N] and `probabilities` float32 [N, C].

    Fails if slimming the graph changes one bit of what it answers for `probe`.
    """
    model = convert_sklearn(
        pipeline,
        name=name,
        initial_types=[("features", FloatTensorType([None, probe.shape[1]]))],
        target_opset=OPSETS,
        options={id(pipeline): {"zipmap": False}},
    )
    n_classes = len(pipeline.classes_)
    before = run(model.SerializeToString(), probe)
    name_dimensions(model, probe.shape[1], n_classes)
    for node in model.graph.node:
        if node.op_type == "TreeEnsembleClassifier":
            slim_trees(node)
    del model.opset_import[:]  # the converters list one domain twice
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in OPSETS.items())
    model.ir_version = IR_VERSION
    model.graph.name = name
    model.doc_string = model.graph.doc_string = ""
    onnx.checker.check_model(model, full_check=True)

    content = model.SerializeToString(deterministic=True)
    if not all(np.array_equal(old, new) for old, new in zip(before, run(content, probe), strict=True)):
        raise AssertionError(f"{name}: slimming changed the graph's answers")
    return content


def run(content: bytes, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities by ONNX Runtime on one thread."""
    label, probabilities = session(content).run(["label", "probabilities"], {"features": values})
    return label, probabilities


def session(content: bytes) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def name_dimensions(model: onnx.ModelProto, n_features: int, n_classes: int) -> None:
    """Gives input and outputs their full shapes, with one name for the batch dimension."""
    shapes = {
        "features": [BATCH_DIMENSION, n_features],
        "label": [BATCH_DIMENSION],
        "probabilities": [BATCH_DIMENSION, n_classes],
    }
    for tensor in [*model.graph.input, *model.graph.output]:
        kind = tensor.type.tensor_type.elem_type
        tensor.CopyFrom(helper.make_tensor_value_info(tensor.name, kind, shapes[tensor.name]))


def slim_trees(node: onnx.NodeProto) -> None:
    """Drops what costs room and says nothing: weights of zero, hit rates, all-default flags."""
    old = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kept = kept_weights(old)
    new = dict(old)
    for name in ("class_ids", "class_nodeids", "class_treeids", "class_weights"):
        new[name] = [old[name][index] for index in kept]
    new.pop("nodes_hitrates", None)
    if not any(old.get("nodes_missing_value_tracks_true", [])):
        new.pop("nodes_missing_value_tracks_true", None)
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(new.items()))


def kept_weights(attributes: dict) -> np.ndarray:
    """Indices of the weights to keep: all but zeros, and at least one for each leaf."""
    leaves = np.stack([attributes["class_treeids"], attributes["class_nodeids"]], axis=1)
    weights = np.asarray(attributes["class_weights"])
    nonzero = np.flatnonzero(weights)
    _, leaf_of = np.unique(leaves, axis=0, return_inverse=True)
    first_of_leaf = np.unique(leaf_of, return_index=True)[1]
    bare = first_of_leaf[~np.isin(leaf_of[first_of_leaf], leaf_of[nonzero])]
    return np.sort(np.concatenate([nonzero, bare]))
