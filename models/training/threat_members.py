"""The members of `threats`, fitted, and how they vote: what workers do with the manifest, in NumPy."""

import numpy as np

LABELS = ["BENIGN", "DDoS", "DoS", "Bot", "Infiltration", "Heartbleed", "Anomaly"]
BASELINE_FEATURES = [
    "Flow Duration",
    "Total Fwd Packets",
    "Total Backward Packets",
    "Total Length of Fwd Packets",
    "Total Length of Bwd Packets",
    "Flow Packets/s",
    "Packet Length Mean",
    "Flow IAT Mean",
    "Entropy of Flags",
]

ports = 'f["Destination Port"]'
RULES = [
    {
        "when": f'({ports} == 21.0 || {ports} == 22.0) && f["Total Fwd Packets"] >= 4.0',
        "label": "Anomaly",
        "confidence": 0.9,
    },
    {
        "when": 'f["RST Flag Count"] >= 1.0 && f["Packets"] <= 3.0 && f["Total Length of Fwd Packets"] == 0.0',
        "label": "Anomaly",
        "confidence": 0.9,
    },
    {
        "when": f'{ports} == 80.0 && f["Flow Duration"] > 5000000.0 && f["Total Fwd Packets"] >= 4.0 '
        '&& f["Total Length of Bwd Packets"] == 0.0',
        "label": "DoS",
        "confidence": 0.9,
    },
    {
        "when": f'({ports} == 443.0 || {ports} == 444.0) && f["Total Length of Bwd Packets"] > 1000000.0 '
        '&& f["Bytes Bwd to Fwd"] > 200.0',
        "label": "Heartbleed",
        "confidence": 0.9,
    },
]


def rule_say(columns: dict[str, np.ndarray]) -> np.ndarray:
    """What the rules say of each row: float64 [rows, labels], zeros where none holds."""
    port, packets = columns["Destination Port"], columns["Packets"]
    held = [
        np.isin(port, [21, 22]) & (columns["Total Fwd Packets"] >= 4),
        (columns["RST Flag Count"] >= 1) & (packets <= 3) & (columns["Total Length of Fwd Packets"] == 0),
        (port == 80)
        & (columns["Flow Duration"] > 5e6)
        & (columns["Total Fwd Packets"] >= 4)
        & (columns["Total Length of Bwd Packets"] == 0),
        np.isin(port, [443, 444]) & (columns["Total Length of Bwd Packets"] > 1e6) & (columns["Bytes Bwd to Fwd"] > 200),
    ]
    say = np.zeros((len(port), len(LABELS)))
    for rule, holds in reversed(list(zip(RULES, held, strict=True))):
        say[holds] = 0
        say[holds, LABELS.index(rule["label"])] = rule["confidence"]
    return say


def classifier_say(probabilities: np.ndarray, labels: list[str], says: dict[str, str | None]) -> np.ndarray:
    """Probabilities under the ensemble's labels; zeros where the likeliest is none of them."""
    say = np.zeros((len(probabilities), len(LABELS)))
    unsaid = np.zeros(len(probabilities))
    for column, label in enumerate(labels):
        said = says[label]
        if said is None:
            unsaid += probabilities[:, column]
        else:
            say[:, LABELS.index(said)] += probabilities[:, column]
    say[unsaid > say.max(axis=1)] = 0
    return say


def flag_say(scores: np.ndarray, threshold: float, scale: float) -> np.ndarray:
    """An anomaly from the threshold on, with the logistic function's confidence; zeros below."""
    say = np.zeros((len(scores), len(LABELS)))
    strange = 1 / (1 + np.exp(-(scores - threshold) / scale))
    say[:, LABELS.index("Anomaly")] = np.where(scores >= threshold, strange, 0)
    return say


def log_magnitude(values: np.ndarray) -> np.ndarray:
    """log1p of the magnitude, with its sign."""
    return np.sign(values) * np.log1p(np.abs(values))


def mahalanobis(columns: dict[str, np.ndarray], baselines: list[dict], precision: np.ndarray) -> np.ndarray:
    """Distance from the baselines, in deviations of log magnitudes."""
    deviations = np.column_stack(
        [(log_magnitude(columns[b["feature"]].astype(np.float64)) - b["mean"]) / b["std"] for b in baselines]
    )
    return np.sqrt(np.maximum(0, np.einsum("ni,ij,nj->n", deviations, precision, deviations)))


def soft_vote(says: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Shares of the vote by label; zeros where nobody speaks."""
    total = sum(weight * say for weight, say in zip(weights, says, strict=True))
    votes = total.sum(axis=1, keepdims=True)
    return np.divide(total, votes, out=np.zeros_like(total), where=votes > 0)
