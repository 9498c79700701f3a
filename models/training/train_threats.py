"""Trains `threats`: an ensemble of classifiers, an isolation forest, rules and a baseline, for one network flow."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries that read it

import lightgbm  # noqa: E402
import numpy as np  # noqa: E402
from sklearn.ensemble import IsolationForest  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from derive import derive  # noqa: E402
from flows import Flows, load_flows  # noqa: E402
from folders import parse_arguments, write_model  # noqa: E402
from manifest import median_flow  # noqa: E402
from export.onnx_export import session  # noqa: E402
from reference import write_gzip, write_header  # noqa: E402
from threat_features import derived_features  # noqa: E402
from threat_members import (  # noqa: E402
    BASELINE_FEATURES,
    LABELS,
    RULES,
    classifier_say,
    flag_say,
    log_magnitude,
    mahalanobis,
    rule_say,
    soft_vote,
)
from export.tree_export import export_isolation_forest, export_lightgbm, with_float32_thresholds  # noqa: E402

NAME = "threats"
SEED = 42
REFERENCE_STEP = 8
MIN_MARGIN = 0.2
TRUTH = {
    "BENIGN": "BENIGN",
    "Bot": "Bot",
    "DDoS": "DDoS",
    "DoS GoldenEye": "DoS",
    "DoS Hulk": "DoS",
    "DoS Slowhttptest": "DoS",
    "DoS slowloris": "DoS",
    "Heartbleed": "Heartbleed",
    "Infiltration": "Infiltration",
    "Infiltration - Portscan": "Infiltration",
}  # all else is an anomaly
OTHER = "other"
SAMPLED = ["BENIGN", "DDoS", "DoS Hulk", "Bot", "SSH-Patator"]


def main() -> None:
    arguments = parse_arguments(__doc__)
    flows = load_flows(arguments.data)
    derived = derived_features()
    names = [*flows.features, *(feature["name"] for feature in derived)]
    values = derive(flows.values, flows.features, derived)
    truth = np.array([TRUTH.get(flows.labels[target], "Anomaly") for target in flows.targets])
    train, held_out = flows.train, flows.held_out
    benign = values[train][truth[train] == "BENIGN"]

    ddos = Classifier("ddos-lightgbm", ["BENIGN", "DDoS", "DoS"], values[train], truth[train])
    malware = Classifier("malware-lightgbm", ["BENIGN", "Bot", "Infiltration", "Heartbleed"], values[train], truth[train])
    forest = IsolationForest(n_estimators=100, max_samples=256, random_state=SEED, n_jobs=1).fit(benign)
    forest_onnx = export_isolation_forest(forest, "anomaly-iforest", len(names))
    benign_scores = -forest.score_samples(benign)
    forest_threshold = round(float(np.quantile(benign_scores, 0.975)), 4)
    forest_scale = round(float(benign_scores.std()), 4)
    baselines, precision = fit_baselines(benign, names)
    distances = mahalanobis(columns_of(benign, names), baselines, precision)
    distance_threshold = round(float(np.quantile(distances, 0.975)), 4)

    def says_of(rows: np.ndarray) -> list[np.ndarray]:
        columns = columns_of(rows, names)
        return [
            ddos.say(rows),
            malware.say(rows),
            flag_say(-forest.score_samples(rows), forest_threshold, forest_scale),
            rule_say(columns),
            flag_say(mahalanobis(columns, baselines, precision), distance_threshold, 1.0),
        ]

    weights = [2.0, 2.0, 0.5, 1.0, 0.5]
    members = [
        ddos.member(weights[0]),
        malware.member(weights[1]),
        {
            "name": "anomaly-iforest",
            "kind": "anomaly",
            "weight": weights[2],
            "file": "anomaly-iforest.onnx",
            "score": "score",
            "threshold": forest_threshold,
            "anomaly": "Anomaly",
            "scale": forest_scale,
        },
        {"name": "rules", "kind": "rules", "weight": weights[3], "rules": RULES},
        {
            "name": "baseline",
            "kind": "statistics",
            "weight": weights[4],
            "method": "mahalanobis",
            "baselines": baselines,
            "precision": precision.tolist(),
            "threshold": distance_threshold,
            "anomaly": "Anomaly",
        },
    ]

    says = says_of(values[held_out])
    shares = soft_vote(says, weights)
    metrics = measure(shares, truth[held_out])
    strange = truth[held_out] != "BENIGN"
    metrics["anomaly_iforest_roc_auc"] = round(
        float(roc_auc_score(strange, -forest.score_samples(values[held_out]))), 4
    )
    check_parity(ddos.onnx, "probabilities", values[held_out], ddos.booster.predict(values[held_out]))
    check_parity(malware.onnx, "probabilities", values[held_out], malware.booster.predict(values[held_out]))
    check_parity(forest_onnx, "score", values[held_out], -forest.score_samples(values[held_out])[:, None])

    manifest = {
        "$schema": "../model.schema.json",
        "title": "Threats, by several opinions",
        "description": "What a network flow is, by the vote of two classifiers, an isolation forest, rules and a baseline "
        "of benign flows; it abstains where they do not agree. Anomaly: unlike benign flows, of no kind that is known.",
        "kind": "tabular",
        "input": {"tensor": "features", "features": flows.features, "derived": derived},
        "output": {
            "head": "ensemble",
            "labels": LABELS,
            "members": members,
            "vote": {"method": "soft", "min_margin": MIN_MARGIN},
        },
        "batching": {"max_batch_rows": 128, "max_delay_ms": 0},
        "timeout_ms": 10000,
        "attempts": 3,
        "cache_ttl_seconds": 300,
        "metrics": metrics,
        "samples": [sample(label, flows, derived, says_of, weights) for label in SAMPLED],
    }
    files = {"ddos-lightgbm.onnx": ddos.onnx, "malware-lightgbm.onnx": malware.onnx, "anomaly-iforest.onnx": forest_onnx}
    write_model(arguments.models / NAME, manifest, files)
    references = arguments.models / "training" / "reference"
    kept = np.arange(0, len(held_out), REFERENCE_STEP)
    write_header(references, NAME, {"rows": held_out[kept].tolist(), "members": [m["name"] for m in members]})
    # The vote and then each member's say, row after row.
    table = np.concatenate([shares, *says], axis=1)[kept]
    write_gzip(references / f"{NAME}.f32.gz", table.astype("<f4").tobytes())
    sizes = ", ".join(f"{name} {len(content):,} bytes" for name, content in files.items())
    print(f"{NAME}: {metrics}; {sizes}")


class Classifier:
    """A LightGBM classifier of some labels, and of all others as one."""

    def __init__(self, name: str, labels: list[str], values: np.ndarray, truth: np.ndarray) -> None:
        self.name, self.labels = name, [*labels, OTHER]
        targets = np.array([labels.index(label) if label in labels else len(labels) for label in truth])
        estimator = lightgbm.LGBMClassifier(
            n_estimators=60,
            num_leaves=15,
            learning_rate=0.1,
            min_child_samples=5,
            random_state=SEED,
            n_jobs=1,
            deterministic=True,
            force_row_wise=True,
            verbosity=-1,
        ).fit(values, targets)
        self.booster = with_float32_thresholds(estimator.booster_)
        if not np.array_equal(self.booster.predict(values), estimator.booster_.predict(values)):
            raise AssertionError(f"{name}: float32 thresholds decide otherwise")
        self.onnx = export_lightgbm(self.booster, name, values.shape[1], len(self.labels))

    def says(self) -> dict[str, str | None]:
        return {label: None if label == OTHER else label for label in self.labels}

    def say(self, rows: np.ndarray) -> np.ndarray:
        return classifier_say(self.booster.predict(rows), self.labels, self.says())

    def member(self, weight: float) -> dict:
        return {
            "name": self.name,
            "kind": "classifier",
            "weight": weight,
            "file": f"{self.name}.onnx",
            "probabilities": "probabilities",
            "labels": self.labels,
            "says": self.says(),
        }


def fit_baselines(benign: np.ndarray, names: list[str]) -> tuple[list[dict], np.ndarray]:
    """Mean and deviation of log magnitudes of benign flows, and the inverse of their correlations."""
    logs = log_magnitude(np.column_stack([benign[:, names.index(name)] for name in BASELINE_FEATURES]).astype(np.float64))
    baselines = [
        {"feature": name, "mean": round(float(column.mean()), 6), "std": round(float(column.std()), 6), "log": True}
        for name, column in zip(BASELINE_FEATURES, logs.T, strict=True)
    ]
    correlations = np.corrcoef(logs, rowvar=False) + 0.05 * np.eye(len(baselines))
    return baselines, np.linalg.inv(correlations).round(6)


def columns_of(rows: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return {name: rows[:, i] for i, name in enumerate(names)}


def measure(shares: np.ndarray, truth: np.ndarray) -> dict:
    """Accuracy with abstaining as wrong, and what it is where the ensemble speaks."""
    ordered = np.sort(shares, axis=1)
    speaks = ordered[:, -1] - ordered[:, -2] >= MIN_MARGIN
    right = np.array(LABELS)[shares.argmax(axis=1)] == truth
    strange = truth != "BENIGN"
    told = np.array(LABELS)[shares.argmax(axis=1)] != "BENIGN"
    return {
        "accuracy": round(float((right & speaks).mean()), 4),
        "accuracy_where_it_speaks": round(float(right[speaks].mean()), 4),
        "abstained": round(float((~speaks).mean()), 4),
        "attacks_called_benign": round(float((speaks & ~told & strange).sum() / strange.sum()), 4),
        "benign_called_attack": round(float((speaks & told & ~strange).sum() / (~strange).sum()), 4),
        "held_out_rows": len(truth),
    }


def check_parity(onnx: bytes, output: str, values: np.ndarray, expected: np.ndarray) -> None:
    """Fails unless the graph answers as the library does."""
    (answers,) = session(onnx).run([output], {"features": values})
    worst = np.abs(answers - expected).max()
    if worst > 1e-5:
        raise AssertionError(f"{output}: the graph differs from the library by {worst:.2g}")


def sample(label: str, flows: Flows, derived: list[dict], says_of, weights: list[float]) -> dict:
    """The median flow of a label with the ensemble's answer; fails if it is a row of the dataset or is mistaken."""
    flow = median_flow(label, flows)
    row = np.array([list(flow.values())], np.float64).astype(np.float32)
    if (flows.values == row).all(axis=1).any():
        raise AssertionError(f"the sample for {label} is a row of the dataset")
    (shares,) = soft_vote(says_of(derive(row, flows.features, derived)), weights)
    wanted = TRUTH.get(label, "Anomaly")
    if LABELS[int(shares.argmax())] != wanted:
        raise AssertionError(f"the sample for {label} is taken for {LABELS[int(shares.argmax())]}: {shares}")
    expected = {"label": wanted, "abstained": False, "confidence": round(float(shares.max()), 6)}
    return {"name": f"a typical {label} flow", "input": flow, "expected": expected}


if __name__ == "__main__":
    main()
