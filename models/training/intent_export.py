"""The intent classifier as an ONNX graph: ids and mask to probabilities."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import intent_features as features
from onnx_export import IR_VERSION


def export_intent(idf: np.ndarray, weights: np.ndarray, scales: np.ndarray, bias: np.ndarray) -> bytes:
    """
    `input_ids` and `attention_mask`, int64 [N, L], to `probabilities` float32 [N, classes].

    `weights` are int8 [buckets, classes], each class to be multiplied by its scale; the softmax's temperature is in
    `scales` and `bias` already. What is masked does not count, so that padding changes nothing.
    """
    graph = Graph()
    longest = max(features.GRAM_SIZES)
    ids = graph.op("Mul", "input_ids", "attention_mask")
    padded = graph.op("Pad", ids, graph.int64([0, 1, 0, longest]), graph.scalar(features.SPACE))
    # The space before, the text and the space after.
    length = graph.op("Add", graph.op("ReduceSum", "attention_mask", graph.int64([1]), keepdims=1), graph.scalar(2))

    modulus, rolling, buckets, valid = graph.scalar(features.MODULUS), padded, [], []
    for size in range(2, longest + 1):
        head = graph.op("Slice", rolling, graph.int64([0]), graph.int64([-1]), graph.int64([1]))
        tail = graph.op("Slice", padded, graph.int64([size - 1]), graph.int64([np.iinfo(np.int64).max]), graph.int64([1]))
        stepped = graph.op("Add", graph.op("Mul", head, graph.scalar(features.STEP)), tail)
        rolling = graph.op("Mod", graph.op("Add", stepped, graph.scalar(features.OFFSET)), modulus)
        spread = graph.op("Mul", rolling, graph.scalar(features.SPREAD))
        salted = graph.op("Mod", graph.op("Add", spread, graph.scalar(size * features.SIZE_SALT)), modulus)
        buckets.append(graph.op("Mod", salted, graph.scalar(features.BUCKETS)))
        width = graph.op("Gather", graph.op("Shape", rolling), graph.scalar(1), axis=0)
        ends = graph.op("Range", graph.scalar(size), graph.op("Add", width, graph.scalar(size)), graph.scalar(1))
        valid.append(graph.op("LessOrEqual", ends, length))

    bucket = graph.op("Concat", *buckets, axis=1)
    counts = graph.op("Cast", graph.op("Concat", *valid, axis=1), to=TensorProto.FLOAT)
    weight = graph.op("Mul", graph.op("Gather", graph.constant(idf.astype(np.float32)), bucket, axis=0), counts)
    norm = graph.op("ReduceL2", weight, axes=[1], keepdims=1)
    rows = graph.op("Cast", graph.op("Gather", graph.constant(weights), bucket, axis=0), to=TensorProto.FLOAT)
    sums = graph.op("MatMul", graph.op("Unsqueeze", weight, graph.int64([1])), rows)
    unit = graph.op("Div", graph.op("Squeeze", sums, graph.int64([1])), norm)
    scaled = graph.op("Mul", unit, graph.constant(scales.astype(np.float32)))
    scores = graph.op("Add", scaled, graph.constant(bias.astype(np.float32)))
    graph.op("Softmax", scores, axis=1, output="probabilities")
    return graph.model("intent-banking77", len(bias))


class Graph:
    """Nodes and constants as they are made."""

    def __init__(self) -> None:
        self.nodes, self.constants = [], []

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def int64(self, values: list[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        return self.constant(np.array(value, np.int64))

    def model(self, name: str, classes: int) -> bytes:
        tokens = [helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "L"]) for n in ("input_ids", "attention_mask")]
        output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])
        graph = helper.make_graph(self.nodes, name, tokens, [output], initializer=self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)
