"""The intent classifier as an ONNX graph: ids and mask to probabilities."""

import numpy as np
from onnx import TensorProto

import intent_features as features
from export.graph import Graph


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
    tokens = {name: (TensorProto.INT64, ["N", "L"]) for name in ("input_ids", "attention_mask")}
    return graph.model("intent-banking77", tokens, {"probabilities": (TensorProto.FLOAT, ["N", len(bias)])})
