"""Measures how many wrong labels are found: some labels of a set are changed, and the ranking is asked which.

The set's unaugmented train and val images are cross-validated by patient, frozen layers only, as `fit --folds` does it, with
the labels as they are and with a share of them changed at random. Prints of each how many images are candidates, which
share of these has a changed label (precision), which share of the changed labels is among them (recall), and the average
precision of the ranking of all images. Labels that were wrong before count as right, so precision is a lower bound; a
reader errs on hard images and not at random, so recall is an upper one.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from train.console import import_tensorflow

import_tensorflow()

from sklearn.metrics import average_precision_score

from train import dataset as datasets
from train.data_checks import label_errors
from train.features import activations, backbone, extract
from train.features.engine import candidates
from train.features.forward import NetworkCache
from train.fitting import cross_validation, folds
from train.settings import Settings

TESTED = 16  # test images of each class: the trainer wants some, and nothing is measured on them

Labels = NDArray[np.int64]


class Found(NamedTuple):
    """What the ranking finds of the changed labels."""

    images: int
    changed: int
    candidates: int
    precision: float
    recall: float
    average_precision: float
    estimated: float

    def __str__(self) -> str:
        figures = (self.precision, self.recall, self.average_precision)
        of_changed = " | ".join(f"{figure:.3f}" if self.changed else "-" for figure in figures)
        return f"{self.images:,} | {self.changed:,} | {self.candidates:,} | {self.estimated:.0f} | {of_changed}"


def chosen(dataset: datasets.Dataset, most: int) -> datasets.Dataset:
    """The unaugmented images of train and val, `most` of each class, and a few of test."""
    rows = dataset.rows[dataset.rows["variant"] == 0]
    held_out = rows["split"] == "test"
    learnt = rows[~held_out].groupby("label").head(most)
    kept = learnt.index.union(rows[held_out].groupby("label").head(TESTED).index)
    return folds.pooled(dataset._replace(rows=dataset.rows.loc[kept].reset_index(drop=True)))


def changed(dataset: datasets.Dataset, share: float, seed: int) -> tuple[datasets.Dataset, NDArray[np.bool_]]:
    """The set with another label for a share of the train images of each class, and which of these they are."""
    rng = np.random.default_rng(seed)
    rows, train = dataset.rows.copy(), dataset.of("train")
    wrong = np.zeros(len(train), bool)
    for label in dataset.classes:
        of_label = np.flatnonzero(train["label"] == label)
        wrong[rng.choice(of_label, round(share * len(of_label)), replace=False)] = True
    others = [[name for name in dataset.classes if name != label] for label in train["label"][wrong]]
    rows.loc[train.index[wrong], "label"] = [names[rng.integers(len(names))] for names in others]
    return dataset._replace(rows=rows), wrong


def measure(
    dataset: datasets.Dataset,
    wrong: NDArray[np.bool_],
    part: backbone.Cut,
    features: extract.Features,
    settings: Settings,
) -> Found:
    """Cross-validate on these labels, and see which of the wrong ones are listed."""
    every, split = dataset.labels(dataset.rows), dataset.rows["split"].to_numpy()
    places = (np.flatnonzero(split == "train"), np.flatnonzero(split == "val"), np.flatnonzero(split != "train"))
    kept = activations.Activations(*(activations.Share(features, every, rows) for rows in places))
    divided = folds.assign(dataset, settings.folds, settings.repeats, settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        validated = cross_validation.fit_folds(
            dataset, divided, part, kept, settings, Path(folder), lambda _: None, lambda *_: None
        )
    labels, probabilities = every[places[0]], validated.out_of_fold.mean("frozen")
    counted = label_errors.confident(labels, probabilities)
    listed = (counted >= 0) & (counted != labels)
    return Found(
        len(labels),
        int(wrong.sum()),
        int(listed.sum()),
        float(wrong[listed].mean()),
        float(listed[wrong].mean()) if wrong.any() else 0.0,
        float(average_precision_score(wrong, -label_errors.scores(labels, probabilities))) if wrong.any() else 0.0,
        float(label_errors.by_class(labels, probabilities, dataset.classes)["estimated wrong"].sum()),
    )


def main() -> None:
    """Print a table: a row a share and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="what its paths are relative to")
    parser.add_argument("--weights", default="imagenet", help="as `fit` takes them")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.03, 0.03, 0.03], help="a draw each")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--most", type=int, default=10**9, help="images of a class")
    given = parser.parse_args()
    settings = Settings(weights=given.weights, folds=given.folds, repeats=given.repeats, fine_tune_epochs=0)
    dataset = chosen(datasets.read(given.manifest, given.root, pooled=True), given.most)
    network = backbone.load_backbone(settings.backbone, settings.weights, dataset.size, settings.seed)
    part = backbone.cut(network, settings.fine_tune_layers)
    engine = candidates("auto")[-1]._replace(precision="float32")
    cache = given.root / "data" / "activations"
    features = extract.features(
        dataset, NetworkCache(part, backbone.digest(network), cache), engine, lambda *_: None, with_tail=False
    )
    print(
        "| changed | draw | images | changed labels | candidates | estimated | precision | recall | average precision |"
    )
    print(f"|{' --: |' * 9}")
    for draw, share in enumerate(given.shares):
        found = measure(*changed(dataset, share, draw), part, features, settings)
        print(f"| {share:.0%} | {draw} | {found} |", flush=True)


if __name__ == "__main__":
    main()
