"""Derived features as a manifest names them: in doubles from float32 columns, rounded to float32, as workers do it."""

import numpy as np


def derive(values: np.ndarray, features: list[str], derived: list[dict]) -> np.ndarray:
    """float32 [rows, features] with a column more for each derived feature."""
    columns = {name: values[:, i] for i, name in enumerate(features)}
    for feature in derived:
        given = [columns[name].astype(np.float64) for name in feature["of"]]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            result = OPERATIONS[feature["op"]](given, feature) * feature.get("scale", 1)
            columns[feature["name"]] = np.nan_to_num(result, posinf=LARGEST, neginf=-LARGEST).clip(-LARGEST, LARGEST).astype(np.float32)
    return np.column_stack(list(columns.values()))


LARGEST = float(np.finfo(np.float32).max)


def total(given: list[np.ndarray]) -> np.ndarray:
    """From left to right, so that every rounding is the same."""
    result = np.zeros_like(given[0])
    for column in given:
        result = result + column
    return result


def entropy(given: list[np.ndarray], _feature: dict) -> np.ndarray:
    """Of magnitudes as shares, in bits; 0 where there is nothing."""
    magnitude = total([np.abs(column) for column in given])
    bits = np.zeros_like(magnitude)
    for column in given:
        share = np.where(magnitude == 0, 0, np.abs(column) / magnitude)
        bits = bits - np.where(share == 0, 0, share * np.log2(np.where(share == 0, 1, share)))
    return bits


def ratio(given: list[np.ndarray], _feature: dict) -> np.ndarray:
    """0 where the divisor is."""
    return np.where(given[1] == 0, 0, given[0] / given[1])


def product(given: list[np.ndarray], _feature: dict) -> np.ndarray:
    """From left to right."""
    result = np.ones_like(given[0])
    for column in given:
        result = result * column
    return result


OPERATIONS = {
    "ratio": ratio,
    "share": lambda given, feature: ratio([given[0], total(given)], feature),
    "sum": lambda given, _feature: total(given),
    "difference": lambda given, _feature: given[0] - given[1],
    "product": product,
    "mean": lambda given, _feature: total(given) / len(given),
    "min": lambda given, _feature: np.minimum.reduce(given),
    "max": lambda given, _feature: np.maximum.reduce(given),
    "entropy": entropy,
    "log1p": lambda given, _feature: np.sign(given[0]) * np.log1p(np.abs(given[0])),
    "sin": lambda given, feature: np.sin(2 * np.pi * given[0] / feature["period"]),
    "cos": lambda given, feature: np.cos(2 * np.pi * given[0] / feature["period"]),
}
