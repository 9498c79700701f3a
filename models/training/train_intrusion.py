"""Trains the three intrusion models and writes their ONNX files, manifests and parity references."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the libraries that read it

from sklearn.metrics import accuracy_score, f1_score  # noqa: E402

from classifiers import fit, recipes  # noqa: E402
from flows import load_flows  # noqa: E402
from manifest import write_manifest  # noqa: E402
from export.onnx_export import export  # noqa: E402
from reference import check_parity, write_held_out, write_probabilities  # noqa: E402

TRAINING = Path(__file__).resolve().parent
PROJECT = TRAINING.parents[1]


def main() -> None:
    arguments = parse_arguments()
    flows = load_flows(arguments.data)
    held_out, truth = flows.values[flows.held_out], flows.targets[flows.held_out]
    references = arguments.models / "training" / "reference"
    write_held_out(references, flows)

    for recipe in recipes():
        pipeline = fit(recipe, flows.values[flows.train], flows.targets[flows.train])
        expected = pipeline.predict_proba(held_out)
        predicted = expected.argmax(axis=1)
        metrics = {
            "accuracy": round(float(accuracy_score(truth, predicted)), 4),
            "macro_f1": round(float(f1_score(truth, predicted, average="macro", zero_division=0)), 4),
            "held_out_rows": len(truth),
        }
        onnx = export(pipeline, recipe.name, held_out)
        parity = check_parity(recipe.name, onnx, held_out, expected)

        folder = arguments.models / recipe.name
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "1" / "model.onnx").write_bytes(onnx)
        write_manifest(folder / "model.json", recipe, flows, metrics, onnx)
        write_probabilities(references, recipe.name, expected)
        print(f"{recipe.name}: {metrics}, {len(onnx):,} bytes; {parity}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=PROJECT / "../shared/data",
        help="folder that holds cicids2017/ (default: ../shared/data from the project's root)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=PROJECT / "models",
        help="folder to write to (default: the project's models/)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
