"""Dataset shift and shortcuts: whether test is like train, and what gives the class away without showing it.

Shift: images of one class, of train (and val) against test. Shortcuts (Geirhos et al. 2020, Shortcut Learning in Deep
Neural Networks): the class from single statistics of the source files and of the set's images, and whether a network can
still see in the set's images what only the files had, their aspect ratio say.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cattrs
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.files import write_atomically
from train import checksums
from train.data_checks import chance, probe
from train.data_checks.image_statistics import OF_FILE, OF_PIXELS, STATISTICS, Range, of_files
from train.dataset import Dataset
from train.evaluation.metrics import Floats
from train.evaluation.phase_metrics import Estimate
from train.evaluation.results import ResultsError

NAME = "shift.json"
_FORMAT = 2  # of what is kept beside the activations; another one where something else would be measured
UNLIKE = 6  # test images of a class that are shown
_READ = 0.9  # of the source files, so that something is said of them
_OF_IMAGES = ("bits per pixel", *OF_PIXELS)  # the set's images all have one size

Progress = Callable[[int, int], None]
PooledOf = Callable[[Dataset], Floats]


@dataclass(frozen=True)
class Unlike:
    """A test image, and the probability that a probe gives it of being of test."""

    path: str
    sha256: str
    probability: float


@dataclass(frozen=True)
class OfClass:
    """The shift of a class: AUROCs for telling test images from train images, and the test images most unlike train.

    `network` is of logistic regression on the frozen backbone's pooled output, `statistics` of one on all statistics, each
    on patients that it wasn't fitted to; `single` of each statistic, above 0.5 where test images have the higher one. `p`, of
    both by name, is how often chance does as well, uncorrected; an older version didn't measure it.
    """

    train: int
    test: int
    network: Estimate
    statistics: Estimate
    single: dict[str, Estimate] = field(default_factory=dict)
    unlike: list[Unlike] = field(default_factory=list)
    p: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shift:
    """All that is measured of a set.

    `files` says whose statistics they are: "source" files, or the set's "image" files where sources are not at hand for
    the `reason`. `classes` is empty without test images. `shortcuts` are AUROCs of single statistics for each class
    against the others (of two classes for the positive one), of source files and of the set's images; `traces`, by class
    and statistic, for telling sources above the median of their class from those below by the network's output;
    `augmented`, by class and statistic, for telling augmented images of train from originals.
    """

    files: str
    reason: str
    classes: dict[str, OfClass]
    shortcuts: dict[str, dict[str, dict[str, Estimate]]]
    traces: dict[str, dict[str, Estimate]]
    augmented: dict[str, dict[str, Estimate]]


class Images(NamedTuple):
    """Unaugmented images: `rows` of the set, pooled activations, and statistics of the source files and of the images."""

    rows: pd.DataFrame
    pooled: Floats
    source: pd.DataFrame
    image: pd.DataFrame

    def where(self, chosen: NDArray[np.bool_]) -> "Images":
        """Those that are chosen, (images,)."""
        return Images(*(each[chosen] for each in self))


def measure(
    dataset: Dataset, pooled_of: PooledOf, source: Path | None, progress: Progress, value_range: Range | None = None
) -> Shift:
    """Measure a set.

    Up to `probe.MOST` unaugmented images of each class of train (of val first, then of train) and of test are compared.

    Args:
        dataset: the set.
        pooled_of: gives the backbone's pooled output, float (images, features), of a set's images, all in one arithmetic.
        source: the folder that the sources lie in; it need not be there. None: they are at an address.
        progress: called with (image files read, image files there are).
        value_range: the samples that the set's recipe took for black and white.
    """
    rows = dataset.rows.assign(is_test=dataset.rows["split"] == "test")
    originals = rows[rows["variant"] == 0].sort_values("split", key=lambda split: split == "train", kind="stable")
    originals = originals.reset_index(drop=True)
    if originals.empty:
        return Shift("image", "the set has no unaugmented images", {}, {}, {}, {})
    originals = originals.iloc[_chosen(originals)].reset_index(drop=True)
    augmented = rows[(rows["variant"] > 0) & (rows["split"] == "train")].reset_index(drop=True)
    augmented = augmented.iloc[probe.sample(augmented, ["label"])].reset_index(drop=True)
    in_all = 2 * len(originals) + len(augmented)

    def read(
        paths: list[Path], checksums: "pd.Series[str]", before: int, value_range: Range | None = None
    ) -> pd.DataFrame:
        return of_files(paths, checksums.tolist(), lambda done, _: progress(before + done, in_all), value_range)

    sources = [source / name for name in originals["source"]] if source else []
    images = Images(
        originals,
        pooled_of(dataset._replace(rows=originals.drop(columns="is_test"))),
        read(sources, originals["source_sha256"], 0, value_range).reindex(range(len(originals))),
        read(dataset.paths(originals), originals["sha256"], len(originals)),
    )
    of_augmented = read(dataset.paths(augmented), augmented["sha256"], 2 * len(originals))
    images, files, reason = _readable(images, source)
    train = images.where(~images.rows["is_test"].to_numpy())
    return Shift(
        files,
        reason,
        of_classes(dataset, images, files),
        {kind: _shortcuts(dataset, train, kind) for kind in dict.fromkeys((files, "image"))},
        _traces(dataset, train) if files == "source" else {},
        _augmented(dataset, train, augmented, of_augmented),
    )


def _chosen(originals: pd.DataFrame) -> NDArray[np.int64]:
    """Of each class and side up to MOST; of train, those of val come first, whose activations are the exact ones."""
    rank = originals["split"].map({"val": "0", "test": "0", "train": "1"}) + originals["sha256"]
    return probe.sample(originals.assign(sha256=rank), ["label", "is_test"])


def _readable(images: Images, source: Path | None) -> tuple[Images, str, str]:
    """The images of which all is known, whose files' statistics are given, and why not the sources'."""
    known = images.source.notna().all(axis=1).to_numpy()
    whole = images.image.notna().all(axis=1).to_numpy()
    if known.mean() >= _READ:
        return images.where(known & whole), "source", ""
    reason = f"{known.sum():,} of {len(known):,} source files can be read in {source}"
    if source is None:
        reason = "they are not on this machine's disks"
    return images.where(whole), "image", reason


def of_classes(dataset: Dataset, images: Images, files: str) -> dict[str, OfClass]:
    """The shift of each class, by the statistics of source files or of the set's images, as `files` says."""
    if not images.rows["is_test"].any():
        return {}
    found = {}
    for label in dataset.classes:
        of = images.where((images.rows["label"] == label).to_numpy())
        is_test, groups = of.rows["is_test"].to_numpy(), of.rows["group"].to_numpy()
        counts = int((~is_test).sum()), int(is_test.sum())
        lacking = probe.too_few(is_test, groups, ("train", "test"), dataset.group_name)
        if lacking:
            found[label] = OfClass(*counts, lacking, lacking)
            continue
        statistics = of.source if files == "source" else of.image[list(_OF_IMAGES)]
        seen = {"network": (of.pooled, probe.WIDE), "statistics": (statistics.to_numpy(), probe.NARROW)}
        scores = {name: probe.scores(each, is_test, groups, penalty) for name, (each, penalty) in seen.items()}
        found[label] = OfClass(
            *counts,
            probe.auroc(is_test, scores["network"], groups),
            probe.auroc(is_test, scores["statistics"], groups),
            _single(is_test, statistics, groups),
            _unlike(of.rows, scores["network"]),
            {name: chance.p_of(each, is_test, groups, penalty) for name, (each, penalty) in seen.items()},
        )
    return found


def _single(kind: NDArray[np.bool_], statistics: pd.DataFrame, groups: NDArray[Any]) -> dict[str, Estimate]:
    """The AUROC of each statistic alone, but for those that are one number in all images."""
    varied = [name for name in statistics if np.ptp(statistics[name].to_numpy()) > 0]
    return {name: probe.auroc(kind, statistics[name].to_numpy(), groups) for name in varied}


def _unlike(rows: pd.DataFrame, scores: Floats) -> list[Unlike]:
    odds = rows.assign(odds=scores)
    most = odds[odds["is_test"]].sort_values(["odds", "path"], ascending=[False, True])[:UNLIKE]
    return [
        Unlike(path, sha256, round(float(1 / (1 + np.exp(-value))), 6))
        for path, sha256, value in zip(most["path"], most["sha256"], most["odds"], strict=True)
    ]


def _shortcuts(dataset: Dataset, train: Images, kind: str) -> dict[str, dict[str, Estimate]]:
    """By class and statistic: the AUROC for that class against the others."""
    names, statistics = (STATISTICS, train.source) if kind == "source" else (_OF_IMAGES, train.image)
    labels, groups = train.rows["label"].to_numpy(), train.rows["group"].to_numpy()
    found = {}
    for label in dataset.classes if dataset.positive is None else (dataset.positive,):
        is_class = labels == label
        if probe.too_few(is_class, groups, ("other", label), dataset.group_name) is None:
            found[label] = _single(is_class, statistics[list(names)], groups)
    return found


def _traces(dataset: Dataset, train: Images) -> dict[str, dict[str, Estimate]]:
    """What of the source files alone a network can see in the set's images, by class and statistic."""
    found: dict[str, dict[str, Estimate]] = {}
    for label in dataset.classes:
        of = train.where((train.rows["label"] == label).to_numpy())
        groups = of.rows["group"].to_numpy()
        for name in OF_FILE:
            values = of.source[name].to_numpy()
            above = values > np.median(values)
            if probe.too_few(above, groups, ("low", "high"), dataset.group_name) is None:
                seen = probe.scores(of.pooled, above, groups)
                found.setdefault(label, {})[name] = probe.auroc(above, seen, groups)
    return found


def _augmented(
    dataset: Dataset, train: Images, augmented: pd.DataFrame, statistics: pd.DataFrame
) -> dict[str, dict[str, Estimate]]:
    """What single statistics say of which images are augmented, by class."""
    found: dict[str, dict[str, Estimate]] = {}
    whole = statistics.notna().all(axis=1).to_numpy()
    for label in dataset.classes:
        originals = train.where((train.rows["label"] == label).to_numpy())
        chosen = (augmented["label"] == label).to_numpy() & whole
        kind = np.r_[np.zeros(len(originals.rows), bool), np.ones(chosen.sum(), bool)]
        groups = np.r_[originals.rows["group"].to_numpy(), augmented["group"].to_numpy()[chosen]]
        if probe.too_few(kind, groups, ("original", "augmented"), dataset.group_name) is None:
            both = pd.concat([originals.image, statistics[chosen]])
            found[label] = _single(kind, both[list(_OF_IMAGES)], groups)
    return found


_CONVERTER = cattrs.Converter(detailed_validation=False)
_DAMAGED = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def once(cache: Path, about: Mapping[str, Any], measure: Callable[[], Shift]) -> Shift:
    """What was measured before and is kept in a folder; or measure now, and keep it.

    Args:
        cache: the folder.
        about: all that it depends on, as JSON.
        measure: does.
    """
    key = hashlib.sha256(json.dumps({"format": _FORMAT, **about}, sort_keys=True).encode()).hexdigest()[:16]
    path = cache / f"shift-{key}.json"
    with contextlib.suppress(*_DAMAGED):  # not there, or to be measured again
        return _from_json(path)
    found = measure()
    write_atomically(path, _to_json(found))
    return found


def write(folder: Path, shift: Shift) -> None:
    """Into the folder of a run that isn't finished yet."""
    write_atomically(folder / NAME, _to_json(shift))


def read(run: Path) -> Shift | None:
    """That of a finished run; None where there is none, as an older version left it.

    Raises:
        ResultsError: it is damaged.
    """
    try:
        found = _from_json(run / NAME)
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        raise ResultsError(f"{run / NAME} is damaged ({error}); train the run again") from None
    if checksums.altered(run, NAME):
        raise ResultsError(f"{run / NAME} is damaged: it is not as `fit` wrote it; train the run again")
    return found


def _to_json(shift: Shift) -> str:
    return json.dumps(_CONVERTER.unstructure(shift), indent=2) + "\n"


def _from_json(path: Path) -> Shift:
    found: Shift = _CONVERTER.structure(json.loads(path.read_text(encoding="utf-8")), Shift)
    return found
