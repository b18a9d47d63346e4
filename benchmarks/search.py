"""Looks for better settings by cross-validation, and opens the test figures of one run only.

    for recipe in even benchmarks/recipes/*.yaml; do python -m augment build --source X-RAYS --recipe $recipe; done
    python benchmarks/search.py manifests/even.csv manifests/clahe.csv --weights WEIGHTS

One choice after the other, each by the AUROC of predictions out of fold, on the unaugmented images of train and val: the rate
of fine-tuning on the first set; the set; each of the options; and last, since it takes longest, the depth. Every configuration
is printed, and then the test figures of the ensemble that was chosen. Figures out of fold are kept in benchmarks/search.csv, by
the set's checksum and the settings, so that a search takes up what was found before, on other machines too.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import train
from common.files import write_atomically
from train.evaluation.phase_metrics import Estimate
from train.evaluation.results import Finished

TABLE = Path(__file__).with_suffix(".csv")
FIGURES = ("AUROC frozen", "accuracy frozen", "AUROC", "accuracy", "s.d. of the folds' AUROC")
COLUMNS = ("set", "settings", *FIGURES, "engine", "manifest")
RATES: list[dict[str, Any]] = [{"fine_tune_learning_rate": rate} for rate in (1e-5, 1e-4)]
OPTIONS: list[dict[str, Any]] = [
    {"schedule": "cosine"},
    {"schedule": "plateau"},
    {"label_smoothing": 0.1},
    {"dropout": 0.3},
    {"optimizer": "adamw"},
]
DEPTHS: list[dict[str, Any]] = [{"fine_tune_layers": 15}]


class Tried(NamedTuple):
    """A configuration, and its row of the table."""

    manifest: Path
    settings: train.Settings
    row: dict[str, str]


def changes(settings: train.Settings) -> str:
    """How settings differ from the defaults."""
    values = [
        (name, value)
        for name, value in vars(settings).items()
        if value != getattr(train.Settings(), name) and name not in ("weights", "backbone")
    ]
    return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values)


def fitted(manifest: Path, settings: train.Settings) -> Finished:
    """A run with these settings; one that is there is taken up."""
    name = "-".join([manifest.stem, *changes(settings).split()])
    return train.fit(manifest, settings, run=manifest.resolve().parents[1] / "runs" / "search" / name)


def tried(manifest: Path, settings: train.Settings) -> Tried:
    """Train with these settings, or take up what is kept of them; and print the row."""
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    known = pd.read_csv(TABLE, dtype=str) if TABLE.is_file() else pd.DataFrame(columns=COLUMNS)
    same = known[(known["manifest"] == sha256) & (known["settings"] == changes(settings))]
    if same.empty:
        run = fitted(manifest, settings)
        first, last = next(iter(run.metrics.values())).val, run.last.val
        spread = run.last.cross_validation.figures["auroc"].folds
        figures = [figure(each) for each in (first.auroc, first.accuracy, last.auroc, last.accuracy)]
        engine = f"{run.settings['engine']} {run.settings['precision']}"
        same = pd.DataFrame(
            [(manifest.stem, changes(settings), *figures, f"{spread:.4f}", engine, sha256)], columns=COLUMNS
        )
        write_atomically(TABLE, pd.concat([known, same]).to_csv(index=False))
    row = same.iloc[0].to_dict()
    print("| " + " | ".join(row[name] for name in COLUMNS[:-2]) + " |", flush=True)
    return Tried(manifest, settings, row)


def figure(estimate: Estimate) -> str:
    """To four digits, which decide between much alike configurations."""
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def best(found: Iterable[Tried]) -> Tried:
    """The first with the largest AUROC of its last phase, which is the model that is saved."""
    return max(found, key=lambda each: float(each.row["AUROC"].split()[0]))


def main() -> None:
    """Search, and print the test figures of what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+", help="of sets, two folders below their root")
    parser.add_argument("--weights", default="imagenet", help="as `fit` takes them")
    parser.add_argument("--folds", type=int, default=3, help="of each configuration")
    chosen = parser.parse_args()
    first, *others = chosen.manifests
    base = train.Settings(weights=chosen.weights, folds=chosen.folds)
    print("| " + " | ".join(COLUMNS[:-2]) + " |")
    so_far = best([tried(first, replace(base, **rate)) for rate in RATES])
    so_far = best([so_far, *(tried(other, so_far.settings) for other in others)])
    for changes_of_stage in (OPTIONS, DEPTHS):
        changed = [replace(so_far.settings, **change) for change in changes_of_stage]
        so_far = best([so_far, *(tried(so_far.manifest, settings) for settings in changed)])
    final = fitted(so_far.manifest, so_far.settings)
    test = final.last.measured
    print(f"\nChosen: {final.name}. On test, opened now: AUROC {test.auroc}")
    for way, decided in test.decisions.items():
        print(f"  at {way}: accuracy {decided.accuracy}, balanced {decided.balanced_accuracy}")


if __name__ == "__main__":
    main()
