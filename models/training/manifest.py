"""Writes `model.json`: what a model is called, what goes in, what comes out, and made-up sample flows."""

import json
import re
from pathlib import Path

import numpy as np

from classifiers import Recipe
from flows import Flows
from export.onnx_export import run

SAMPLE_DECIMALS = 3
PROBABILITY_DECIMALS = 6
SAMPLED_LABELS = [
    "BENIGN",
    "DDoS",
    "DoS GoldenEye",
    "DoS Hulk",
    "DoS slowloris",
    "FTP-Patator",
    "PortScan",
    "SSH-Patator",
]


def write_manifest(path: Path, recipe: Recipe, flows: Flows, metrics: dict, onnx: bytes) -> None:
    """Writes the manifest; a sample's `expected` is what ONNX Runtime answers for it in float32."""
    manifest = {
        "$schema": "../model.schema.json",
        "title": recipe.title,
        "description": recipe.description,
        "kind": "tabular",
        "input": {"tensor": "features", "features": flows.features},
        "output": {"head": "classifier", "probabilities": "probabilities", "labels": flows.labels},
        "batching": {"max_batch_rows": 256, "max_delay_ms": 0},
        "timeout_ms": 10000,
        "attempts": 3,
        "cache_ttl_seconds": 300,
        "metrics": metrics,
        "samples": [sample(label, flows, onnx) for label in SAMPLED_LABELS],
    }
    text = re.sub(r"(?<=\de-)0(?=\d)", "", json.dumps(manifest, indent=2))  # 5e-6, as the project's formatter has it
    path.write_text(text + "\n", encoding="utf-8")


def sample(label: str, flows: Flows, onnx: bytes) -> dict:
    """The median flow of a label with the model's answer; fails if the model does not give it that label."""
    flow = median_flow(label, flows)
    row = np.array([list(flow.values())], np.float64).astype(np.float32)
    if (flows.values == row).all(axis=1).any():
        raise AssertionError(f"the sample for {label} is a row of the dataset")
    (index,), (probabilities,) = run(onnx, row)
    if flows.labels[index] != label:
        raise AssertionError(f"the sample for {label} is taken for {flows.labels[index]}")
    rounded = [round(float(p), PROBABILITY_DECIMALS) for p in probabilities]
    return {
        "name": f"a typical {label} flow",
        "input": flow,
        "expected": {
            "label": label,
            "confidence": rounded[index],
            "probabilities": dict(zip(flows.labels, rounded, strict=True)),
        },
    }


def median_flow(label: str, flows: Flows) -> dict[str, int | float]:
    """Each feature's median over the label's training flows; whole-number features stay whole."""
    train = flows.table.iloc[flows.train]
    medians = train[flows.targets[flows.train] == flows.labels.index(label)].median()
    flow = {}
    for feature in flows.features:
        whole = np.issubdtype(flows.table[feature].dtype, np.integer)
        value = round(float(medians[feature]), 0 if whole else SAMPLE_DECIMALS)
        flow[feature] = int(value) if value.is_integer() else value
    return flow
