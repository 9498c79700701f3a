"""Traces that cameras and JPEG leave in an image, as the fixed first layers of a network: an ONNX graph."""

import numpy as np

from export.graph import Graph
from made_images import SIDE

BLOCK = 8
HISTOGRAM_BINS = 21
HISTOGRAM_COEFFICIENTS = 15
TRACE_BLOCK = 32
PEAKS = 8
EPSILON = 1e-3


def add_features(graph: Graph, image: str) -> str:
    """From `image` float32 [N, 3, SIDE, SIDE], 0 to 255, to features [N, F]."""
    luma = graph.op("Conv", image, graph.constant(np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1)))
    green = graph.op("Conv", image, graph.constant(np.array([0, 1, 0], np.float32).reshape(1, 3, 1, 1)))
    cross = np.array([[0, -0.25, 0], [-0.25, 1, -0.25], [0, -0.25, 0]])
    flat = np.array([[0, 0, 0], [-0.5, 1, -0.5], [0, 0, 0]])
    residuals = [residual(graph, *pair) for pair in ((luma, cross), (green, cross), (luma, flat), (luma, flat.T))]
    parts = [coefficients(graph, luma)]
    for one in residuals:
        parts.append(phases(graph, one))
    for axis in (2, 3):
        parts.append(periods(graph, residuals[0], axis))
    return graph.op("Concat", *parts, axis=1)


def coefficients(graph: Graph, luma: str) -> str:
    """How the coefficients of JPEG's blocks are spread: what was quantized before leaves gaps and zeros."""
    centred = graph.op("Sub", luma, floats(graph, [128]))
    spread = graph.op("Conv", centred, graph.constant(cosines()), strides=[BLOCK, BLOCK])
    magnitude = graph.op("Abs", spread)
    logs = mean(graph, graph.op("Log", graph.op("Add", magnitude, floats(graph, [1]))), [2, 3])
    zeros = mean(graph, tent(graph, magnitude, floats(graph, [0])), [2, 3])
    low = graph.op("Gather", magnitude, graph.constant(zigzag()[1 : HISTOGRAM_COEFFICIENTS + 1]), axis=1)
    rows = graph.op("Reshape", low, graph.int64([0, HISTOGRAM_COEFFICIENTS, 1, -1]))
    bins = graph.constant(np.arange(HISTOGRAM_BINS, dtype=np.float32).reshape(1, 1, -1, 1))
    histogram = graph.op("Flatten", mean(graph, tent(graph, rows, bins), [3]), axis=1)
    return graph.op("Concat", logs, zeros, histogram, axis=1)


def residual(graph: Graph, plane: str, kernel: np.ndarray) -> str:
    """How far each pixel is from what its neighbours tell, up to 20."""
    weights = graph.constant(kernel.astype(np.float32).reshape(1, 1, 3, 3))
    rest = graph.op("Abs", graph.op("Conv", plane, weights, pads=[1, 1, 1, 1]))
    return graph.op("Clip", rest, graph.constant(np.float32(0)), graph.constant(np.float32(20)))


def phases(graph: Graph, rest: str) -> str:
    """Pixels that a camera filled in are nearer to their neighbours; which ones, block by block of the image."""
    pick = graph.constant(np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2))
    phase = graph.op("Conv", rest, pick, strides=[2, 2])
    side = TRACE_BLOCK // 2
    blocks = graph.op("AveragePool", phase, kernel_shape=[side, side], strides=[side, side])
    logs = graph.op("Log", graph.op("Add", blocks, floats(graph, [EPSILON])))
    contrasts = [[1, -1, -1, 1], [1, 0, 0, -1], [0, 1, -1, 0], [1, 1, -1, -1], [1, -1, 1, -1], [0.25] * 4]
    mixed = graph.op("Conv", logs, graph.constant(np.array(contrasts, np.float32).reshape(-1, 4, 1, 1)))
    average = graph.op("ReduceMean", mixed, axes=[2, 3], keepdims=1)
    away = graph.op("Sub", mixed, average)
    spread = graph.op("Sqrt", mean(graph, graph.op("Mul", away, away), [2, 3]))
    least = graph.op("ReduceMin", mixed, axes=[2, 3], keepdims=0)
    most = graph.op("ReduceMax", mixed, axes=[2, 3], keepdims=0)
    size = mean(graph, graph.op("Abs", mixed), [2, 3])
    return graph.op("Concat", mean(graph, mixed, [2, 3]), size, spread, least, most, axis=1)


def periods(graph: Graph, rest: str, axis: int) -> str:
    """How regularly residuals repeat along one side: scaling leaves peaks, JPEG's grid others."""
    profile = graph.op("Flatten", graph.op("ReduceMean", rest, axes=[1, axis], keepdims=0), axis=1)
    centred = graph.op("Sub", profile, graph.op("ReduceMean", profile, axes=[1], keepdims=1))
    turns = np.outer(np.arange(SIDE), np.arange(1, SIDE // 2 + 1)) * (2 * np.pi / SIDE)
    parts = [graph.op("MatMul", centred, graph.constant(wave(turns).astype(np.float32))) for wave in (np.cos, np.sin)]
    squares = [graph.op("Mul", part, part) for part in parts]
    power = graph.op("Sqrt", graph.op("Add", graph.op("Add", *squares), floats(graph, [EPSILON])))
    share = graph.op("Div", power, graph.op("ReduceMean", power, axes=[1], keepdims=1))
    logs = graph.op("Log", share)
    grid = np.arange(SIDE // BLOCK, SIDE // 2 + 1, SIDE // BLOCK) - 1
    others = np.array([f for f in range(16, SIDE // 2) if f not in grid], np.int64)
    peaks = graph.op("Gather", logs, graph.constant(others), axis=1)
    highest = f"peaks{axis}"
    graph.op("TopK", peaks, graph.int64([PEAKS]), output=highest, axis=1, more_outputs=[f"places{axis}"])
    return graph.op("Concat", highest, graph.op("Gather", logs, graph.constant(grid.astype(np.int64)), axis=1), axis=1)


def tent(graph: Graph, values: str, centre: str) -> str:
    """1 at the centre, 0 from a distance of 1 on."""
    distance = graph.op("Abs", graph.op("Sub", values, centre))
    return graph.op("Relu", graph.op("Sub", floats(graph, [1]), distance))


def mean(graph: Graph, values: str, axes: list[int]) -> str:
    return graph.op("ReduceMean", values, axes=axes, keepdims=0)


def floats(graph: Graph, values: list[float]) -> str:
    return graph.constant(np.array(values, np.float32))


def cosines() -> np.ndarray:
    """The 64 patterns of JPEG's transform as kernels."""
    k = np.arange(BLOCK)
    basis = np.sqrt(2 / BLOCK) * np.cos((2 * k[None, :] + 1) * k[:, None] * np.pi / (2 * BLOCK))
    basis[0] /= np.sqrt(2)
    return np.einsum("ux,vy->uvxy", basis, basis).reshape(BLOCK**2, 1, BLOCK, BLOCK).astype(np.float32)


def zigzag() -> np.ndarray:
    """Coefficients from the lowest frequency to the highest."""
    places = [(u, v) for u in range(BLOCK) for v in range(BLOCK)]
    order = sorted(places, key=lambda p: (p[0] + p[1], p[0] if (p[0] + p[1]) % 2 else p[1]))
    return np.array([u * BLOCK + v for u, v in order], np.int64)
