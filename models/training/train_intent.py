"""Trains `intent-banking77`: which of 77 things a customer of a bank wants, from the text of the question."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries that read it

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy.special import log_softmax, softmax  # noqa: E402
from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: E402
from sklearn.svm import LinearSVC  # noqa: E402

from folders import parse_arguments, write_model  # noqa: E402
from export.intent_export import export_intent  # noqa: E402
from intent_features import character_tokenizer, fit_vectorizer  # noqa: E402
from export.onnx_export import session  # noqa: E402
from reference import write_gzip, write_header  # noqa: E402

NAME = "intent-banking77"
SEED = 77
REFERENCE_STEP = 8
LONGEST = 512
QUESTIONS = {
    "card_arrival": "It has been ages since you mailed my new card, when will it get here?",
    "lost_or_stolen_card": "I lost my card in a taxi last night, what should I do?",
    "exchange_rate": "What exchange rates do you offer these days, and who sets them?",
    "change_pin": "Where do I go to choose a different PIN for my card?",
    "declined_card_payment": "The shop refused my card when I wanted to pay for shoes",
    "terminate_account": "Please close my account, I do not want it any more",
    "age_limit": "My daughter is twelve, is she old enough to have an account?",
    "top_up_failed": "I wanted to top up and it did not go through, why is that?",
}


def main() -> None:
    arguments = parse_arguments(__doc__)
    train, test = (read(arguments.data, part) for part in ("train", "test"))
    labels = sorted(train["category"].unique())
    truth = {part: frame["category"].map(labels.index).to_numpy() for part, frame in (("train", train), ("test", test))}
    texts, held_out = train["text"].tolist(), test["text"].tolist()

    tokenizer = character_tokenizer(texts)
    vectorizer = fit_vectorizer(tokenizer, texts)
    matrix = vectorizer.transform(texts)
    classifier = LinearSVC(C=1.0, random_state=SEED)
    folds = StratifiedKFold(5, shuffle=True, random_state=SEED)
    margins = cross_val_predict(classifier, matrix, truth["train"], cv=folds, method="decision_function")
    temperature = fit_temperature(margins, truth["train"])
    classifier.fit(matrix, truth["train"])

    # Quantized before anything is measured, so that what is measured is what is served.
    scales = np.abs(classifier.coef_).max(axis=1) / 127
    weights = np.round(classifier.coef_ / scales[:, None]).astype(np.int8)
    classifier.coef_ = weights * scales[:, None]
    expected = softmax(temperature * classifier.decision_function(vectorizer.transform(held_out)), axis=1)
    metrics = {
        "accuracy": round(float((expected.argmax(axis=1) == truth["test"]).mean()), 4),
        "cross_validated_accuracy": round(float((margins.argmax(axis=1) == truth["train"]).mean()), 4),
        "held_out_rows": len(held_out),
    }
    onnx = export_intent(
        vectorizer.idf, np.ascontiguousarray(weights.T), temperature * scales, temperature * classifier.intercept_
    )
    answers = np.concatenate([run(onnx, tokenizer, [text]) for text in held_out])
    worst = np.abs(answers - expected).max()
    if worst > 1e-5 or (answers.argmax(axis=1) != expected.argmax(axis=1)).any():
        raise AssertionError(f"{NAME}: the graph differs from the library by {worst:.2g}")

    manifest = {
        "$schema": "../model.schema.json",
        "title": "Intents of bank customers",
        "description": "Which of 77 things a customer of a bank wants, from a question in English. Weighted character "
        "n-grams and a linear classifier, trained on BANKING77. It always names one of the 77, also for what is none.",
        "kind": "text",
        "input": {
            "tokenizer": {
                "file": "tokenizer.json",
                "ids": "input_ids",
                "mask": "attention_mask",
                "max_tokens": LONGEST,
                "pad_id": 0,
                "special_tokens": False,
            },
            "min_length": 1,
            "max_length": LONGEST,
        },
        "output": {"head": "classifier", "probabilities": "probabilities", "labels": labels},
        "batching": {"max_batch_rows": 32, "max_delay_ms": 0},
        "timeout_ms": 10000,
        "attempts": 3,
        "cache_ttl_seconds": 300,
        "metrics": metrics,
        "samples": [sample(intent, text, {*texts, *held_out}, labels, onnx, tokenizer) for intent, text in QUESTIONS.items()],
    }
    write_model(arguments.models / NAME, manifest, {"model.onnx": onnx, "tokenizer.json": tokenizer.to_str().encode()})
    references = arguments.models / "training" / "reference"
    write_header(references, NAME, {"step": REFERENCE_STEP, "classes": labels})
    write_gzip(references / f"{NAME}.f32.gz", expected[::REFERENCE_STEP].astype("<f4").tobytes())
    print(f"{NAME}: {metrics}, {len(onnx):,} bytes, temperature {temperature:.3g}, worst difference {worst:.2g}")


def read(data: Path, part: str) -> pd.DataFrame:
    """One part of BANKING77, as its file has it."""
    return pd.read_csv(data / "banking77" / f"{part}.csv.gz", keep_default_na=False)


def fit_temperature(margins: np.ndarray, truth: np.ndarray) -> float:
    """What to multiply margins by, so that confidences are as often right as they say, on rows that were not trained on."""
    candidates = np.linspace(1, 20, 191)
    losses = [-log_softmax(t * margins, axis=1)[np.arange(len(truth)), truth].mean() for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def run(onnx: bytes, tokenizer, texts: list[str], cache: dict = {}) -> np.ndarray:  # noqa: B006
    """Probabilities by ONNX Runtime, for texts that are padded to the longest."""
    opened = cache.setdefault(id(onnx), session(onnx))
    rows = [encoding.ids[:LONGEST] for encoding in tokenizer.encode_batch(texts)]
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)
    (probabilities,) = opened.run(["probabilities"], {"input_ids": ids, "attention_mask": mask})
    return probabilities


def sample(intent: str, text: str, rows: set[str], labels: list[str], onnx: bytes, tokenizer) -> dict:
    """A made question with the model's answer; fails if it is a row of the dataset or is not understood."""
    (probabilities,) = run(onnx, tokenizer, [text])
    best = int(probabilities.argmax())
    if text in rows:
        raise AssertionError(f"the sample for {intent} is a row of the dataset")
    if labels[best] != intent:
        raise AssertionError(f"the sample for {intent} is taken for {labels[best]}")
    return {"name": intent, "input": text, "expected": {"label": intent, "confidence": round(float(probabilities[best]), 6)}}


if __name__ == "__main__":
    main()
