"""Looks for better settings by cross-validation, and opens the test figures of one run only.

    for recipe in even benchmarks/recipes/*.yaml; do python -m augment build --source X-RAYS --recipe $recipe; done
    python benchmarks/search.py manifests/even.csv manifests/clahe.csv --weights WEIGHTS

One choice after the other, each by the AUROC of predictions out of fold, on the unaugmented images of train and val: first
how many layers are fine-tuned and at which rate, on the first set; then each of the options; then the other sets. Every
configuration is printed. What was chosen is trained with --final-folds then, and its ensemble tested. What was trained before
is not trained again.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import train
from train.evaluation.results import Finished

DEPTHS: list[dict[str, Any]] = [
    {"fine_tune_layers": layers, "fine_tune_learning_rate": rate}
    for layers, rate in itertools.product((5, 15), (1e-5, 1e-4))
]
OPTIONS: list[dict[str, Any]] = [
    {"schedule": "cosine"},
    {"schedule": "plateau"},
    {"label_smoothing": 0.1},
    {"dropout": 0.3},
    {"optimizer": "adamw"},
]


class Tried(NamedTuple):
    """A configuration, and what it came to out of fold."""

    manifest: Path
    settings: train.Settings
    run: Finished

    @property
    def auroc(self) -> float:
        """Of the last phase, which is the model that is saved."""
        return self.of_phase[-1].val.auroc.value or 0.0

    @property
    def of_phase(self) -> list[Any]:
        """The figures, phase by phase."""
        return list(self.run.metrics.values())


def tried(manifest: Path, settings: train.Settings, changed: dict[str, Any]) -> Tried:
    """Train with some settings changed, or take up the run that did; and print its row."""
    changed_settings = replace(settings, **changed)
    differing = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in vars(changed_settings).items()
        if value != getattr(train.Settings(), name) and name not in ("weights", "backbone")
    ]
    folder = manifest.resolve().parents[1] / "runs" / "search" / "-".join([manifest.stem, *differing])
    found = Tried(manifest, changed_settings, train.fit(manifest, changed_settings, run=folder))
    figures = " | ".join(
        f"{of_phase.val.auroc} | {of_phase.val.accuracy}" for of_phase in (found.of_phase[0], found.of_phase[-1])
    )
    varied = found.of_phase[-1].cross_validation.figures["auroc"]
    print(
        f"ROW | {manifest.stem} | {', '.join(differing) or 'defaults'} | {figures} | {varied.folds:.4f} |", flush=True
    )
    return found


def best(found: Iterable[Tried]) -> Tried:
    """The first with the largest AUROC."""
    return max(found, key=lambda each: each.auroc)


def main() -> None:
    """Search, and print the test figures of what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+", help="of sets, two folders below their root")
    parser.add_argument("--weights", default="imagenet", help="as `fit` takes them")
    parser.add_argument("--folds", type=int, default=3, help="of the search")
    parser.add_argument("--final-folds", type=int, default=5, help="of what was chosen")
    chosen = parser.parse_args()
    first, *others = chosen.manifests
    base = train.Settings(weights=chosen.weights, folds=chosen.folds)
    print("| set | settings | frozen: AUROC | accuracy | fine-tuned: AUROC | accuracy | s.d. of the folds' AUROC |")
    so_far = best([tried(first, base, depth) for depth in DEPTHS])
    so_far = best([so_far, *(tried(first, so_far.settings, option) for option in OPTIONS)])
    so_far = best([so_far, *(tried(other, so_far.settings, {}) for other in others)])
    final = tried(so_far.manifest, so_far.settings, {"folds": chosen.final_folds})
    test = final.of_phase[-1].measured
    print(f"\nChosen: {final.run.name}. On test, opened now: AUROC {test.auroc}")
    for way, decided in test.decisions.items():
        print(f"  at {way}: accuracy {decided.accuracy}, balanced {decided.balanced_accuracy}")


if __name__ == "__main__":
    main()
