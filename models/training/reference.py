"""Compares the exported models with the training library and keeps its answers for the project's tests."""

import gzip
import json
from pathlib import Path

import numpy as np

from flows import Flows
from export.onnx_export import run

TOLERANCE = 1e-5
REQUIRED_SHARE = 0.9995


def check_parity(name: str, onnx: bytes, values: np.ndarray, expected: np.ndarray) -> str:
    """Fails unless enough rows agree within the tolerance; returns a line that says how many did."""
    labels, probabilities = run(onnx, values)
    worst_of_row = np.abs(probabilities - expected).max(axis=1)
    within = int((worst_of_row <= TOLERANCE).sum())
    same_label = int((labels == expected.argmax(axis=1)).sum())
    summary = (
        f"{within}/{len(values)} rows within {TOLERANCE:g}, worst {worst_of_row.max():.2g}, "
        f"{same_label} with the same label"
    )
    if within < REQUIRED_SHARE * len(values):
        raise AssertionError(f"{name}: only {summary}")
    return summary


def write_held_out(folder: Path, flows: Flows) -> None:
    """Writes which rows were held out, and the order of the classes."""
    header = {"rows": flows.held_out.tolist(), "classes": flows.labels}
    write_gzip(folder / "held-out.json.gz", json.dumps(header, separators=(",", ":")).encode())


def write_probabilities(folder: Path, name: str, probabilities: np.ndarray) -> None:
    """Writes one model's probabilities as little-endian float32, row after row."""
    write_gzip(folder / f"{name}.f32.gz", probabilities.astype("<f4").tobytes())


def write_header(folder: Path, name: str, header: dict) -> None:
    """Writes what a model's reference holds: which rows, and what a row is."""
    write_gzip(folder / f"{name}.json.gz", json.dumps(header, separators=(",", ":")).encode())


def write_gzip(path: Path, content: bytes) -> None:
    """Gzip without name or time, so that the same content gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
