"""Loads the CIC-IDS2017 flows and splits them, the same way on every run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

LABEL_COLUMN = "Label"
SPLIT_SEED = 20170707  # the last day of the capture
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class Flows:
    """All flows in the order of the sorted file names; `train` and `held_out` are row indices into them."""

    table: pd.DataFrame  # features as read: whole-number columns stay integers
    values: np.ndarray  # float32 [rows, features]: what the models are fed
    targets: np.ndarray  # int64 [rows]: index into `labels`
    features: list[str]  # in column order
    labels: list[str]  # sorted
    train: np.ndarray
    held_out: np.ndarray


def load_flows(data_dir: Path) -> Flows:
    """Reads `cicids2017/*.csv.gz` under `data_dir`; fails on a header that differs or on a value that is no number."""
    paths = sorted((data_dir / "cicids2017").glob("*.csv.gz"), key=lambda path: path.name)
    if not paths:
        raise FileNotFoundError("no cicids2017/*.csv.gz in the data folder: give it with --data")
    # pandas' default parser may be off by one unit in the last place; JavaScript's is not.
    tables = [pd.read_csv(path, float_precision="round_trip") for path in paths]
    if any(list(table.columns) != list(tables[0].columns) for table in tables):
        raise ValueError("the files do not share one header")
    table = pd.concat(tables, ignore_index=True)

    labels = sorted(table[LABEL_COLUMN].unique())
    targets = table[LABEL_COLUMN].map({label: index for index, label in enumerate(labels)}).to_numpy(np.int64)
    table = table.drop(columns=LABEL_COLUMN)
    values = table.to_numpy(np.float64).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("the flows hold a value that is not a finite number")

    train, held_out = train_test_split(
        np.arange(len(table)), test_size=HELD_OUT_SHARE, random_state=SPLIT_SEED, stratify=targets
    )
    return Flows(table, values, targets, list(table.columns), labels, np.sort(train), np.sort(held_out))
