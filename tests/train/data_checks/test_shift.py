"""Shift and shortcuts, on images that have them by design, and on real X-rays."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from train import checksums
from train.data_checks import shift, shift_summary
from train.dataset import Dataset
from train.evaluation.phase_metrics import Estimate
from train.evaluation.results import ResultsError

CLASSES = ("0", "TRUE")
SIDE = 32


def drawn(root: Path, *, test: bool = True, sources: bool = True) -> tuple[Dataset, np.ndarray]:
    """A set with 40 sources a class and split, each its own patient, and the sources' aspect ratios.

    Test images of class 0 are brighter than its train images, those of TRUE are not; sources of TRUE are wider; augmented
    images are blurred.
    """
    rng = np.random.default_rng(0)
    rows, ratios = [], []

    def save(path: Path, pixels: np.ndarray) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for split in ("train", "val", "test")[: 3 if test else 2]:
        for label in CLASSES:
            for number in range(40):
                width = int(rng.integers(40, 60)) + 20 * (label == "TRUE")
                level = 110 + 60 * (split == "test" and label == "0")
                pixels = np.clip(rng.normal(level + rng.normal(0, 8), 20, (50, width)), 0, 255).astype(np.uint8)
                name = f"{split}-{label}-{number:03}"
                source = save(root / "source" / f"{name}.png", pixels)
                image = cv2.resize(pixels, (SIDE, SIDE))
                for variant in range(2 if split == "train" else 1):
                    path = f"data/{name}-v{variant}.png"
                    sha256 = save(root / path, cv2.GaussianBlur(image, (0, 0), 1) if variant else image)
                    rows.append(
                        (path, label, split, f"{name}.png", f"{number:03}{split}{label}", variant, source, sha256)
                    )
                    ratios.append(width / 50)
    if not sources:
        for file in (root / "source").iterdir():
            file.unlink()
    columns = ["path", "label", "split", "source", "group", "variant", "source_sha256", "sha256"]
    return Dataset(pd.DataFrame(rows, columns=columns), {}, CLASSES, (SIDE, SIDE), root, ""), np.array(ratios)


def measured(root: Path, dataset: Dataset, ratios: np.ndarray) -> shift.Shift:
    """What is measured with a network whose output holds the sources' aspect ratio, and noise."""
    of_path = dict(zip(dataset.rows["path"], ratios, strict=True))

    def pooled_of(some: Dataset) -> np.ndarray:
        noise = np.random.default_rng(1).normal(size=(len(some.rows), 4))
        return np.column_stack([some.rows["path"].map(of_path), noise])

    shown: list[tuple[int, int]] = []
    found = shift.measure(dataset, pooled_of, root / "source", lambda *at: shown.append(at))
    assert shown == sorted(shown)
    assert shown[-1][0] == shown[-1][1]
    return found


def test_what_is_there_is_found_and_nothing_else(tmp_path: Path) -> None:
    """A brighter test set in one class, a class known by the shape of its files, its trace, and blurred variants."""
    dataset, ratios = drawn(tmp_path)
    found = measured(tmp_path, dataset, ratios)
    assert (found.files, found.reason) == ("source", "")

    bright, same = found.classes["0"], found.classes["TRUE"]
    assert (bright.train, bright.test) == (80, 40)
    assert bright.single["brightness"].low > 0.9
    assert bright.statistics.low > 0.9
    assert bright.network.low < 0.5, "the network's output holds no brightness"
    assert same.single["brightness"].low < 0.5 < same.single["brightness"].high
    assert bright.p["statistics"] < 0.001
    assert bright.p["network"] > 0.05
    assert min(same.p.values()) > 0.05
    assert [each.path.split("-")[:2] for each in bright.unlike] == [["data/test", "0"]] * shift.UNLIKE
    odds = [each.probability for each in bright.unlike]
    assert odds == sorted(odds, reverse=True)

    assert found.shortcuts["source"]["TRUE"]["aspect ratio"].low > 0.9
    assert found.shortcuts["source"]["TRUE"]["contrast"].low < 0.5 < found.shortcuts["source"]["TRUE"]["contrast"].high
    assert "aspect ratio" not in found.shortcuts["image"]["TRUE"], "all images of a set have one"
    assert found.traces["TRUE"]["aspect ratio"].low > 0.8
    assert found.augmented["0"]["sharpness"].high < 0.1

    text = {part.title: " ".join(part.sentences) for part in shift_summary.summary(found, {"size": [SIDE, SIDE]})}
    assert "0: test images differ from train images in more than chance" in text["Is test like train?"]
    assert "brightness differs most" in text["Is test like train?"]
    assert f"simple statistics at {bright.statistics} (p = 0.002)" in text["Is test like train?"], "of four tests"
    assert "TRUE: no sign that test images differ" in text["Is test like train?"]
    shortcuts = text["What gives the class away?"]
    assert "The aspect ratio of the source file alone gives TRUE at" in shortcuts
    assert "all 32 x 32, but its trace is still there" in shortcuts
    assert "augmented images are known by their sharpness" in text["What marks augmented images?"]


def test_without_sources_the_images_are_compared(tmp_path: Path) -> None:
    """And it is said why; what follows from the files' shapes is not measured."""
    dataset, ratios = drawn(tmp_path, sources=False)
    found = measured(tmp_path, dataset, ratios)
    assert found.files == "image"
    assert found.reason == f"0 of 240 source files can be read in {tmp_path / 'source'}"
    assert found.classes["0"].single.keys() == {"bits per pixel", "brightness", "contrast", "sharpness", "border"}
    assert found.classes["0"].single["brightness"].low > 0.9
    assert found.shortcuts.keys() == {"image"}
    assert not found.traces
    (said,) = [part for part in shift_summary.summary(found, {}) if part.title == "What gives the class away?"]
    assert "The source files were not measured: 0 of 240" in " ".join(said.sentences)


def test_without_test_images_there_is_no_shift(tmp_path: Path) -> None:
    """But shortcuts are measured."""
    dataset, ratios = drawn(tmp_path, test=False)
    found = measured(tmp_path, dataset, ratios)
    assert found.classes == {}
    assert found.shortcuts["source"]["TRUE"]["aspect ratio"].low > 0.9
    assert [part.title for part in shift_summary.summary(found, {})] == [
        "What gives the class away?",
        "What marks augmented images?",
    ]


def test_few_patients_are_said_to_be_few(tmp_path: Path) -> None:
    """However many images they have."""
    dataset, ratios = drawn(tmp_path)
    few = dataset.rows["group"].where(dataset.rows["label"] == "0", dataset.rows["group"].str[2:])
    found = measured(tmp_path, dataset._replace(rows=dataset.rows.assign(group=few)), ratios)
    few_of = dataset._replace(rows=dataset.rows.assign(group=dataset.rows["split"] + dataset.rows["label"]))
    assert measured(tmp_path, few_of, ratios).classes["0"].network.reason == "40 test images of 1 groups are too few"
    assert found.classes["0"].network.value is not None


def test_a_rare_class_gives_no_certainty(tmp_path: Path) -> None:
    """Three images of one patient are no evidence of a shortcut; nor is a set without originals."""
    dataset, ratios = drawn(tmp_path)
    rare = (dataset.rows["label"] == "0") | dataset.rows["group"].str.startswith(("000", "001"))
    few = dataset._replace(rows=dataset.rows[rare].reset_index(drop=True))
    assert measured(tmp_path, few, ratios[rare]).shortcuts == {"source": {}, "image": {}}
    augmented = (dataset.rows["variant"] > 0).to_numpy()
    only = dataset._replace(rows=dataset.rows[augmented].reset_index(drop=True))
    found = shift.measure(only, lambda some: np.zeros((len(some.rows), 1)), tmp_path / "source", lambda *_: None)
    assert found.reason == "the set has no unaugmented images"
    assert shift_summary.summary(found, {}) == []


def of_class(p: dict[str, float], low: float = 0.52) -> shift.OfClass:
    """A class whose AUROCs have intervals above 0.5."""
    seen = Estimate(0.6, low, 0.68)
    return shift.OfClass(100, 100, seen, seen, {"contrast": seen}, p=p)


def test_that_test_differs_is_said_by_the_corrected_p() -> None:
    """An interval above 0.5 is no evidence, nor is one p of many; of an older run, which has none, nothing is said."""
    chances = {"network": 0.02, "statistics": 0.6}
    for classes, differs in (({"a": chances}, True), ({"a": chances, "b": {"network": 0.3, "statistics": 0.4}}, False)):
        found = shift.Shift("source", "", {label: of_class(p) for label, p in classes.items()}, {}, {}, {})
        (part,) = shift_summary.summary(found, {})
        assert ("a: test images differ from train images in more than chance" in part.findings[0]) is differs
        assert ("(p = 0.040)" in part.findings[0]) is differs
        assert bool(part.advice) is differs
    (older,) = shift_summary.summary(shift.Shift("source", "", {"a": of_class({})}, {}, {}, {}), {})
    assert older.findings[0].startswith("a: an older version measured it")
    assert not older.advice


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    """To the last digit; what is damaged or changed by hand is named, what isn't there is None."""
    dataset, ratios = drawn(tmp_path / "set")
    found = measured(tmp_path / "set", dataset, ratios)
    run = tmp_path / "run"
    run.mkdir()
    assert shift.read(run) is None
    shift.write(run, found)
    checksums.write(run)
    assert shift.read(run) == found
    text = (run / "shift.json").read_text()
    for damaged in (text[:100], "[]", text.replace('"files": "source"', '"files": "image"')):
        (run / "shift.json").write_text(damaged)
        with pytest.raises(ResultsError, match=r"shift\.json is damaged"):
            shift.read(run)


def test_a_set_is_measured_once(tmp_path: Path) -> None:
    """Until something is another, or what was kept is damaged."""
    dataset, ratios = drawn(tmp_path / "set")
    found = measured(tmp_path / "set", dataset, ratios)
    times = []

    def measure() -> shift.Shift:
        times.append(1)
        return found

    for expected, about in ((1, "a"), (1, "a"), (2, "b"), (2, "a")):
        assert shift.once(tmp_path / "cache", {"manifest": about}, measure) == found
        assert len(times) == expected
    for kept in (tmp_path / "cache").iterdir():
        kept.write_text("{}")
    assert shift.once(tmp_path / "cache", {"manifest": "a"}, measure) == found
    assert len(times) == 3


def test_kermanys_test_images_differ_from_train_in_statistics(
    xrays_set: Callable[..., Path], xrays_224: Path, tmp_path: Path
) -> None:
    """Within NORMAL, as twelve global statistics had it: an AUROC of 0.70."""
    from train import dataset as datasets

    dataset = datasets.read(xrays_set(train=300, val=20, test=234), tmp_path)

    def pooled_of(some: Dataset) -> Any:
        return np.random.default_rng(0).normal(size=(len(some.rows), 3))

    found = shift.measure(dataset, pooled_of, xrays_224, lambda *_: None)
    of_normal = found.classes["NORMAL"]
    assert found.files == "source"
    assert 0.6 < of_normal.statistics.low < of_normal.statistics.high < 0.95
    assert of_normal.network.low < 0.5, "of noise nothing follows"
    assert of_normal.p["statistics"] < 0.001
    assert of_normal.p["network"] > 0.05
