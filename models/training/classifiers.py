"""The three classifiers and the scaler in front of them."""

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

MODEL_SEED = 42


@dataclass(frozen=True)
class Recipe:
    """What a model's folder is called, how its manifest introduces it, and the unfitted estimator."""

    name: str
    title: str
    description: str
    estimator: object


def recipes() -> list[Recipe]:
    """The models to train, new and unfitted on each call."""
    about = "Names the attack, if any, behind one network flow, from 78 CICFlowMeter features."
    return [
        Recipe(
            "intrusion-random-forest",
            "Network intrusion, random forest",
            f"{about} 100 trees of depth 12 at most, trained on CIC-IDS2017 (improved).",
            RandomForestClassifier(n_estimators=100, max_depth=12, random_state=MODEL_SEED, n_jobs=1),
        ),
        Recipe(
            "intrusion-xgboost",
            "Network intrusion, XGBoost",
            f"{about} 60 rounds of gradient boosting, trained on CIC-IDS2017 (improved).",
            XGBClassifier(
                n_estimators=60,
                max_depth=6,
                learning_rate=0.2,
                tree_method="hist",
                objective="multi:softprob",
                random_state=MODEL_SEED,
                n_jobs=1,
            ),
        ),
        Recipe(
            "intrusion-decision-tree",
            "Network intrusion, decision tree",
            f"{about} One tree of depth 12 at most, trained on CIC-IDS2017 (improved): the quick one.",
            DecisionTreeClassifier(max_depth=12, random_state=MODEL_SEED),
        ),
    ]


def fit(recipe: Recipe, values: np.ndarray, targets: np.ndarray) -> Pipeline:
    """Fits scaler and estimator on float32 values; the returned pipeline takes unscaled float32 values."""
    scaler = fit_exact_scaler(values)
    recipe.estimator.fit(scaler.transform(values), targets)
    return Pipeline([("scaler", scaler), ("classifier", recipe.estimator)])


def fit_exact_scaler(values: np.ndarray) -> StandardScaler:
    """
    A StandardScaler whose float32 arithmetic is the same bit for bit in NumPy and in ONNX Runtime.

    NumPy divides by the scale, the ONNX Scaler multiplies by its inverse: only for a power of two do both round
    alike. Tree thresholds lie on or next to data values, so one different bit can send a flow down another branch.
    """
    scaler = StandardScaler().fit(values)
    scaler.mean_ = scaler.mean_.astype(np.float32).astype(np.float64)
    scaler.scale_ = np.exp2(np.round(np.log2(scaler.scale_)))
    scaler.var_ = scaler.scale_**2
    return scaler
