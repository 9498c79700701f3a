"""Trains `transaction-anomaly`: how much a card payment looks like fraud."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries that read it

import numpy as np  # noqa: E402
import onnx as onnx_format  # noqa: E402
import pandas as pd  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.metrics import precision_recall_curve, precision_score, recall_score, roc_auc_score  # noqa: E402
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split  # noqa: E402
from sklearn.pipeline import Pipeline  # noqa: E402

from derive import derive  # noqa: E402
from folders import parse_arguments, write_model  # noqa: E402
from export.onnx_export import export, session  # noqa: E402
from reference import write_gzip, write_header  # noqa: E402

NAME = "transaction-anomaly"
SEED = 492
DAY_SECONDS = 86_400
COMPONENTS = [f"v{i}" for i in range(1, 29)]
FEATURES = ["amount", "date", *COMPONENTS]
DERIVED = [
    {"name": "amount (log)", "op": "log1p", "of": ["amount"]},
    {"name": "time of day (sine)", "op": "sin", "of": ["date"], "period": DAY_SECONDS},
    {"name": "time of day (cosine)", "op": "cos", "of": ["date"], "period": DAY_SECONDS},
]


def main() -> None:
    arguments = parse_arguments(__doc__)
    payments = pd.read_csv(
        arguments.data / "creditcard" / "creditcard_sample_492fraud.csv.gz", index_col=0, float_precision="round_trip"
    )
    seconds = payments["Time"] % DAY_SECONDS
    given = np.column_stack([payments["Amount"], seconds, *(payments[name.upper()] for name in COMPONENTS)])
    given = given.astype(np.float32)
    values = derive(given, FEATURES, DERIVED)
    truth = payments["Class"].to_numpy()
    train, held_out = (
        np.sort(part)
        for part in train_test_split(np.arange(len(truth)), test_size=0.3, random_state=SEED, stratify=truth)
    )

    forest = RandomForestClassifier(n_estimators=200, max_depth=8, min_samples_leaf=2, random_state=42, n_jobs=1)
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    crossed = cross_val_predict(forest, values[train], truth[train], cv=folds, method="predict_proba")[:, 1]
    threshold = best_threshold(truth[train], crossed)
    forest.fit(values[train], truth[train])
    expected = forest.predict_proba(values[held_out])[:, 1]
    metrics = {
        "roc_auc": round(float(roc_auc_score(truth[held_out], expected)), 4),
        "cross_validated_roc_auc": round(float(roc_auc_score(truth[train], crossed)), 4),
        "precision": round(float(precision_score(truth[held_out], expected >= threshold)), 4),
        "recall": round(float(recall_score(truth[held_out], expected >= threshold)), 4),
        "held_out_rows": len(held_out),
    }
    onnx = scoring(export(Pipeline([("classifier", forest)]), NAME, values[held_out]))
    worst = np.abs(run(onnx, values[held_out]) - expected).max()
    if worst > 1e-5:
        raise AssertionError(f"{NAME}: the graph differs from the library by {worst:.2g}")

    manifest = {
        "$schema": "../model.schema.json",
        "title": "Anomalies in card payments",
        "description": "How much a card payment looks like fraud: the share of a forest's vote. Without v1 to v28, the "
        "principal components of what the bank knows, it can tell next to nothing.",
        "kind": "tabular",
        "input": {
            "tensor": "features",
            "features": [
                {"name": "amount", "description": "In euro", "min": 0, "max": 1_000_000},
                {"name": "date", "description": "When it was paid", "type": "date", "part": "second_of_day"},
                *({"name": name, "default": 0} for name in COMPONENTS),
            ],
            "derived": DERIVED,
        },
        "output": {"head": "anomaly", "score": "score", "threshold": threshold},
        "batching": {"max_batch_rows": 256, "max_delay_ms": 0},
        "timeout_ms": 10000,
        "attempts": 3,
        "cache_ttl_seconds": 300,
        "metrics": metrics,
        "samples": [
            sample("a typical payment", given[train][truth[train] == 0], given, onnx, threshold),
            sample("a typical fraud", given[train][truth[train] == 1], given, onnx, threshold),
        ],
    }
    write_model(arguments.models / NAME, manifest, {"model.onnx": onnx})
    references = arguments.models / "training" / "reference"
    write_header(references, NAME, {"rows": held_out.tolist()})
    write_gzip(references / f"{NAME}.f32.gz", expected.astype("<f4").tobytes())
    print(f"{NAME}: {metrics}, {len(onnx):,} bytes, threshold {threshold}, worst difference {worst:.2g}")


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The score with the best F1, on payments that were not trained on; between two scores, so that no rounding decides."""
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    best = int(np.argmax((2 * precision * recall / np.maximum(precision + recall, 1e-9))[:-1]))
    below = scores[scores < thresholds[best]].max()
    return round(float((thresholds[best] + below) / 2), 4)


def scoring(content: bytes) -> bytes:
    """The classifier's graph with the probability of fraud alone as its output, `score` [N]."""
    model = onnx_format.load_from_string(content)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "fraud"))
    graph.node.append(helper.make_node("Gather", ["probabilities", "fraud"], ["score"], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]))
    onnx_format.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def run(onnx: bytes, values: np.ndarray) -> np.ndarray:
    """Scores by ONNX Runtime."""
    return session(onnx).run(["score"], {"features": values})[0]


def sample(name: str, rows: np.ndarray, all_rows: np.ndarray, onnx: bytes, threshold: float) -> dict:
    """A made payment of medians with the model's answer; fails if it is a row of the dataset or is not told apart."""
    amount, _, *components = np.median(rows, axis=0).round(3).tolist()
    made = np.array([[amount, 15 * 3600 + 30 * 60, *components]], np.float32)
    if (all_rows == made).all(axis=1).any():
        raise AssertionError(f"{name} is a row of the dataset")
    score = float(run(onnx, derive(made, FEATURES, DERIVED))[0])
    if (score >= threshold) != ("fraud" in name):
        raise AssertionError(f"{name} scores {score}")
    named = dict(zip(COMPONENTS, (round(value, 3) for value in components), strict=True))
    return {
        "name": name,
        "input": {"amount": round(amount, 2), "date": "2026-01-31T15:30:00Z", **named},
        "expected": {"is_anomaly": score >= threshold, "score": round(score, 6), "threshold": threshold},
    }


if __name__ == "__main__":
    main()
