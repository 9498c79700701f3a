"""LightGBM classifiers and isolation forests as ONNX graphs that decide as their libraries do, to the last float32."""

import re

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.ensemble import IsolationForest

from export.onnx_export import IR_VERSION, OPSETS, name_dimensions, slim_trees


def below(thresholds: np.ndarray) -> np.ndarray:
    """The largest float32 not above each threshold: for float32 values, `x <= t` says the same of both."""
    rounded = thresholds.astype(np.float32)
    above = rounded.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)


def with_float32_thresholds(booster: lightgbm.Booster) -> lightgbm.Booster:
    """The same booster with thresholds that float32 can hold, which changes no answer for float32 features."""

    def replace(line: re.Match) -> str:
        values = below(np.array([float(text) for text in line.group(1).split()]))
        return "threshold=" + " ".join(repr(float(value)) for value in values)

    text = re.sub(r"^threshold=(.*)$", replace, booster.model_to_string(), flags=re.MULTILINE)
    # Sizes of the trees' texts, which are other ones now.
    return lightgbm.Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE))


def export_lightgbm(booster: lightgbm.Booster, name: str, features: int, classes: int) -> bytes:
    """`features` float32 [N, F] to `probabilities` float32 [N, C]."""
    model = convert_lightgbm(
        booster,
        name=name,
        initial_types=[("features", FloatTensorType([None, features]))],
        target_opset=OPSETS[""],
        zipmap=False,
    )
    graph = model.graph
    for node in graph.node:
        if node.op_type == "TreeEnsembleClassifier":
            slim_trees(node)
    name_dimensions(model, features, classes)
    kept = [output for output in graph.output if output.name == "probabilities"]
    del graph.output[:]
    graph.output.extend(kept)
    return finish(model, name)


def export_isolation_forest(forest: IsolationForest, name: str, features: int) -> bytes:
    """`features` float32 [N, F] to `score` float32 [N, 1]: 0 to 1, higher is stranger; scikit-learn's, without its sign."""
    attributes = {key: [] for key in ("treeids", "nodeids", "featureids", "values", "truenodeids", "falsenodeids")}
    modes, targets = [], {"treeids": [], "nodeids": [], "weights": []}
    for tree, (estimator, columns) in enumerate(zip(forest.estimators_, forest.estimators_features_, strict=True)):
        nodes = estimator.tree_
        depths = depths_of(nodes)
        for node in range(nodes.node_count):
            leaf = nodes.children_left[node] < 0
            modes.append("LEAF" if leaf else "BRANCH_LEQ")
            attributes["treeids"].append(tree)
            attributes["nodeids"].append(node)
            attributes["featureids"].append(0 if leaf else int(columns[nodes.feature[node]]))
            attributes["values"].append(0.0 if leaf else float(below(np.array([nodes.threshold[node]]))[0]))
            attributes["truenodeids"].append(0 if leaf else int(nodes.children_left[node]))
            attributes["falsenodeids"].append(0 if leaf else int(nodes.children_right[node]))
            if leaf:
                targets["treeids"].append(tree)
                targets["nodeids"].append(node)
                targets["weights"].append(float(depths[node] + average_path(nodes.n_node_samples[node])))
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["depths"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_modes=modes,
        target_ids=[0] * len(targets["weights"]),
        **{f"nodes_{key}": values for key, values in attributes.items()},
        **{f"target_{key}": values for key, values in targets.items()},
    )
    divisor = -len(forest.estimators_) * average_path(forest.max_samples_)
    graph = helper.make_graph(
        [
            trees,
            helper.make_node("Div", ["depths", "divisor"], ["power"]),
            helper.make_node("Pow", ["two", "power"], ["score"]),
        ],
        name,
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        initializer=[
            numpy_helper.from_array(np.array(divisor, np.float32), "divisor"),
            numpy_helper.from_array(np.array(2, np.float32), "two"),
        ],
    )
    return finish(helper.make_model(graph), name)


def depths_of(nodes) -> np.ndarray:
    """Edges from the root to each node."""
    depths = np.zeros(nodes.node_count)
    for node in range(nodes.node_count):  # children come after their parents
        for child in (nodes.children_left[node], nodes.children_right[node]):
            if child >= 0:
                depths[child] = depths[node] + 1
    return depths


def average_path(samples: int) -> float:
    """The mean depth at which a random tree isolates one of so many samples."""
    if samples <= 1:
        return 0.0
    if samples == 2:
        return 1.0
    return 2 * (np.log(samples - 1) + np.euler_gamma) - 2 * (samples - 1) / samples


def finish(model: onnx.ModelProto, name: str) -> bytes:
    """Checked, and the same bytes on every run."""
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in OPSETS.items())
    model.ir_version = IR_VERSION
    model.graph.name = name
    model.doc_string = model.graph.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)
