"""A run measured on another set's test images: external validation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from manifests import contract
from train import dataset as datasets
from train.dataset import Dataset
from train.measure import metrics
from train.trained import Trained

_BATCH = 32


class ExternalError(ValueError):
    """The set can't be used to measure this run; the message names what is wrong and the fix."""


class Measured(NamedTuple):
    """What a run came to. `checked` is whether the run's own set was at hand to look for shared images."""

    metrics: dict[str, Any]
    checked: bool


def measure(trained: Trained, manifest: Path, root: Path, progress: Callable[[int, int], None]) -> Measured:
    """Run a trained model on the test images of a manifest, at the threshold that was chosen on its own validation.

    Raises:
        ContractError: a manifest breaks the contract.
        DatasetError: an image is missing.
        ExternalError: no test images, other classes or sizes, or images of sources that the run has learnt from.
    """
    rows = contract.read(manifest)
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    if test.empty:
        raise ExternalError(f"{manifest}: has no test images; build the set with test above 0")
    if strange := sorted(set(test["label"]) - set(trained.classes)):
        raise ExternalError(f"{manifest}: has the class {strange[0]}, the run knows {', '.join(trained.classes)}")
    sizes = sorted(set(zip(test["width"].tolist(), test["height"].tolist(), strict=True)))
    if sizes != [trained.size]:
        raise ExternalError(f"{manifest}: images of {sizes[0]}, the run takes {trained.size}; build it with that size")
    checked = _expect_unseen(trained, test, manifest)
    dataset = Dataset(test, contract.read_card(manifest), trained.classes, trained.size, root, "")
    datasets.expect_files(dataset, manifest)
    parts = []
    for batch in datasets.images(dataset.paths(test), trained.size, _BATCH):
        parts.append(trained.probabilities(batch.numpy()))
        progress(sum(map(len, parts)), len(test))
    groups, labels = test["group"].to_numpy(), dataset.labels(test)
    return Measured(metrics(labels, np.concatenate(parts), groups, trained.classes, trained.threshold), checked)


def _expect_unseen(trained: Trained, test: pd.DataFrame, manifest: Path) -> bool:
    """Whether the run's own set could be looked through for these images, with an error if it holds some."""
    own = Path(str(trained.settings.get("manifest", "")))
    if not own.is_file():
        return False
    learnt = contract.read(own)
    learnt = learnt[learnt["split"] != "test"]
    same = test["source_sha256"].isin(learnt["source_sha256"])
    if same.any():
        raise ExternalError(
            f"{manifest}: {same.sum():,} of its {len(test):,} test images ({test.loc[same, 'path'].iloc[0]}, ...) are "
            f"among those that the run learnt from ({own}); its figures would be a lie"
        )
    return True
