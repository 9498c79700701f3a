"""Where training reads and writes, the same for every command."""

import argparse
import json
from pathlib import Path

TRAINING = Path(__file__).resolve().parent
PROJECT = TRAINING.parents[1]


def parse_arguments(about: str | None) -> argparse.Namespace:
    """`--data` and `--models`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--data",
        type=Path,
        default=PROJECT / "../shared/data",
        help="folder that holds the datasets (default: ../shared/data from the project's root)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        default=PROJECT / "models",
        help="folder to write to (default: the project's models/)",
    )
    return parser.parse_args()


def write_model(folder: Path, manifest: dict, files: dict[str, bytes]) -> None:
    """Writes `model.json` and the files of version 1."""
    (folder / "1").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / "1" / name).write_bytes(content)
    write_json(folder / "model.json", manifest, indent=2)


def write_json(path: Path, value: object, indent: int | None = None) -> None:
    """JSON text that ends with a line break."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
