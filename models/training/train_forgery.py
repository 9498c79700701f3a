"""Trains `deepfake-image`: whether an image is as a camera left it, or was resampled, spliced or re-compressed."""

import base64
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries that read it

import numpy as np  # noqa: E402
from onnx import TensorProto  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from folders import PROJECT, parse_arguments, write_json, write_model  # noqa: E402
from forgery_features import add_features  # noqa: E402
from export.graph import Graph  # noqa: E402
from made_images import SIDE, TAMPERINGS, make_image, pixels_of  # noqa: E402
from export.onnx_export import session  # noqa: E402

NAME = "deepfake-image"
SEED = 42
TRAINED_ON = range(3000)
HELD_OUT = range(1_000_000, 1_001_000)
TESTED_WITH = range(2_000_000, 2_000_032)
SAMPLES = (3_000_000, 3_000_001)


def main() -> None:
    arguments = parse_arguments(__doc__)
    features = session(graph_of(None))
    network = make_pipeline(
        StandardScaler(), MLPClassifier((64,), alpha=1.0, max_iter=200, early_stopping=False, random_state=SEED)
    )
    values, kinds = load(features, TRAINED_ON)
    network.fit(values, kinds != "untouched")
    held_out, truths = load(features, HELD_OUT)
    expected = network.predict_proba(held_out)[:, 1]
    right = (expected > 0.5) == (truths != "untouched")
    metrics = {
        "accuracy": round(float(right.mean()), 4),
        "roc_auc": round(float(roc_auc_score(truths != "untouched", expected)), 4),
        **{f"accuracy_{kind}": round(float(right[truths == kind].mean()), 4) for kind in ("untouched", *TAMPERINGS)},
        "held_out_images": len(truths),
    }
    onnx = graph_of(network)
    opened = session(onnx)
    answers = np.array([run(opened, file_of(seed)) for seed in HELD_OUT[:100]])
    worst = np.abs(answers - expected[:100]).max()
    if worst > 1e-4:
        raise AssertionError(f"{NAME}: the graph differs from the library by {worst:.2g}")

    manifest = {
        "$schema": "../model.schema.json",
        "title": "Tampered images",
        "description": "Whether an image is as a camera left it, or was resampled, spliced or re-compressed, from the traces "
        f"that this leaves in the middle {SIDE} by {SIDE} pixels. Trained on made images of one simple camera only: what it "
        "says of real photographs, of images that were scaled down for the web, or of what a network painted, is not measured.",
        "kind": "image",
        "input": {
            "tensor": "image",
            "width": SIDE,
            "height": SIDE,
            "channels": "rgb",
            "layout": "nchw",
            "fit": "crop",
            "std": 1 / 255,
            "max_bytes": 10_000_000,
            "max_pixels": 50_000_000,
        },
        "output": {"head": "classifier", "probabilities": "probabilities", "labels": ["real", "fake"]},
        # Joined rows do not stay in the cache of a core: eight of them take twice as long as one after the other.
        "batching": {"max_batch_rows": 1, "max_delay_ms": 0},
        "timeout_ms": 30000,
        "attempts": 3,
        "cache_ttl_seconds": 300,
        "metrics": metrics,
        "samples": [sample(opened, seed) for seed in SAMPLES],
    }
    write_model(arguments.models / NAME, manifest, {"model.onnx": onnx})
    images = PROJECT / "test/fixtures/images"
    told = {}
    for seed in TESTED_WITH:
        folder = images / ("tampered" if tampering_of(seed) else "untouched")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{seed}-{tampering_of(seed) or 'untouched'}.jpg"
        (folder / name).write_bytes(file_of(seed))
        told[name] = round(run(opened, file_of(seed)), 6)
    write_json(images / "fake-prob.json", told, indent=2)
    print(f"{NAME}: {metrics}, {len(onnx):,} bytes, worst difference {worst:.2g}")


def tampering_of(seed: int) -> str | None:
    """Every second image is untouched, the others are tampered with in turn."""
    return None if seed % 2 == 0 else TAMPERINGS[seed // 2 % len(TAMPERINGS)]


def file_of(seed: int) -> bytes:
    return make_image(seed, tampering_of(seed))


def tensor_of(file: bytes) -> np.ndarray:
    """float32 [1, 3, SIDE, SIDE], 0 to 255."""
    return pixels_of(file).transpose(2, 0, 1)[None].astype(np.float32)


def load(features, seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Features and kinds of the images of some seeds."""
    rows = [features.run(["features"], {"image": tensor_of(file_of(seed))})[0][0] for seed in seeds]
    return np.array(rows), np.array([tampering_of(seed) or "untouched" for seed in seeds])


def run(opened, file: bytes) -> float:
    """The probability that a file is a fake, by ONNX Runtime."""
    return float(opened.run(["probabilities"], {"image": tensor_of(file)})[0][0, 1])


def graph_of(network) -> bytes:
    """The fixed layers to `features`, or with the trained ones behind them to `probabilities` [N, 2]."""
    graph = Graph()
    image = {"image": (TensorProto.FLOAT, ["N", 3, SIDE, SIDE])}
    features = add_features(graph, "image")
    if network is None:
        graph.op("Identity", features, output="features")
        return graph.model(NAME, image, {"features": (TensorProto.FLOAT, ["N", "F"])})
    scaler, dense = network.steps[0][1], network.steps[1][1]
    centred = graph.op("Sub", features, graph.constant(scaler.mean_.astype(np.float32)))
    value = graph.op("Div", centred, graph.constant(scaler.scale_.astype(np.float32)))
    layers = list(zip(dense.coefs_, dense.intercepts_, strict=True))
    for i, (weights, bias) in enumerate(layers):
        pair = graph.constant(weights.astype(np.float32)), graph.constant(bias.astype(np.float32))
        value = graph.op("Gemm", value, *pair)
        value = graph.op("Relu" if i < len(layers) - 1 else "Sigmoid", value)
    rest = graph.op("Sub", graph.constant(np.array([1], np.float32)), value)
    graph.op("Concat", rest, value, axis=1, output="probabilities")
    return graph.model(NAME, image, {"probabilities": (TensorProto.FLOAT, ["N", 2])})


def sample(opened, seed: int) -> dict:
    """A made image with the model's answer; fails if it is mistaken."""
    file = file_of(seed)
    fake, kind = run(opened, file), tampering_of(seed) or "untouched"
    if (fake > 0.5) != (kind != "untouched"):
        raise AssertionError(f"the {kind} sample has a fake_prob of {fake}")
    return {
        "name": f"a made image, {kind}",
        "input": f"data:image/jpeg;base64,{base64.b64encode(file).decode()}",
        "expected": {"label": "real" if kind == "untouched" else "fake"},
    }


if __name__ == "__main__":
    main()
