"""Which images a report shows, and how."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests import contract
from train.evaluation import curves, results
from train.reporting import error_analysis


def scored(labels: list[int], probabilities: list[list[float]], cut: float = 0.5) -> curves.Scored:
    """As read from a run, with the second of two classes from `cut` on."""
    predicted_probabilities = np.array(probabilities)
    predicted = (
        (predicted_probabilities[:, 1] >= cut).astype(np.int64)
        if predicted_probabilities.shape[1] == 2
        else predicted_probabilities.argmax(axis=1)
    )
    rows = pd.DataFrame({"path": [f"{number:03}.jpg" for number in range(len(predicted_probabilities))]})
    classes = tuple(f"class{index}" for index in range(predicted_probabilities.shape[1]))
    return curves.Scored(
        "test",
        rows,
        classes,
        np.array(labels),
        predicted,
        predicted_probabilities,
        np.arange(len(predicted_probabilities)),
    )


def test_the_surest_mistakes_come_first() -> None:
    """By how little the own class got; the least certain by the chosen threshold; then the surest right ones."""
    positive = [0.95, 0.1, 0.75, 0.72, 0.68, 0.2, 0.05]
    of = scored([0] * 7, [[1 - p, p] for p in positive], 0.7)
    found = error_analysis.pick(of, 0.7)
    rows = {kind: [each.row for each in found if each.kind == kind] for kind in error_analysis.KINDS}
    assert rows == {"wrong": [0, 2, 3], "uncertain": [4, 5, 1], "right": [6]}
    assert [each.predicted for each in found] == [1, 1, 1, 0, 0, 0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(1, 9), min_size=3, max_size=3)), min_size=1, max_size=60)
)
def test_no_image_is_shown_twice_and_each_in_its_place(images: list[tuple[int, list[int]]]) -> None:
    """Of three classes too: wrong ones are wrong, right ones right, and all mistakes are there if they are few."""
    parts = np.array([part for _, part in images], dtype=float)
    of = scored([label for label, _ in images], (parts / parts.sum(axis=1, keepdims=True)).tolist())
    found = error_analysis.pick(of, None)
    assert len({each.row for each in found}) == len(found)
    wrong = of.predicted != of.labels
    for label in range(3):
        rows = [each.row for each in found if each.kind == "wrong" and of.labels[each.row] == label]
        assert all(wrong[row] for row in rows)
        assert len(rows) == min(6, (wrong & (of.labels == label)).sum())
        own = of.probabilities[rows, label]
        assert (np.diff(own) >= 0).all()
    assert not any(wrong[each.row] for each in found if each.kind == "right")


def test_a_probability_is_shown_beside_what_decided() -> None:
    """A confident mistake of probability 0.413: the threshold says why; of more classes the runner-up does."""
    of = scored([0, 1], [[0.587, 0.413], [0.9, 0.1]], 0.2)
    picked = {each.row: each for each in error_analysis.pick(of, 0.2)}
    assert error_analysis.probability(of, picked[0], 0.2) == "0.413 (class1 from 0.200 on)"
    assert error_analysis.probability(of, picked[1], 0.2) == "0.900; of class1 0.100 (class1 from 0.200 on)"
    three = scored([0], [[0.25, 0.413, 0.337]])
    (only,) = error_analysis.pick(three, None)
    assert error_analysis.probability(three, only, None) == "0.413 (runner-up: class2, 0.337)"


def _pixels(url: str) -> np.ndarray:
    kind, _, text = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_what_was_judged_is_shown_with_its_evidence(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """The image as it is, and brighter where the heat is; one that was changed or removed is not shown."""
    run = results.read(drawn_run(tmp_path))
    rows, gone = error_analysis.rows_of(run, error_analysis.manifest_of(run, tmp_path))
    assert rows is not None
    assert gone == ""
    of = curves.scored(run, "fine-tuned")
    picked = error_analysis.pick(of, None)
    changed, removed = (tmp_path / of.rows["path"][each.row] for each in picked[:2])
    changed.write_bytes(b"secret")
    removed.unlink()
    asked = []

    def heat(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        asked.append((images.shape, classes.tolist()))
        found = np.zeros((len(images), 2, 2), np.float32)
        found[:, 0, 1] = 1
        return found

    seen = error_analysis.see(of, picked, 0.5, rows, tmp_path, heat)
    assert asked == [((len(picked) - 2, 64, 64, 3), [each.predicted for each in picked[2:]])]
    assert [each.image is None for each in seen] == [True, True] + [False] * (len(seen) - 2)
    for each, predicted_probabilities in zip(picked[2:], seen[2:], strict=True):
        assert predicted_probabilities.name == Path(of.rows["path"][each.row]).name
        assert predicted_probabilities.image is not None
        assert predicted_probabilities.overlay is not None
        original = np.asarray(Image.open(tmp_path / of.rows["path"][each.row])).astype(float)
        assert np.abs(_pixels(predicted_probabilities.image) - original).mean() < 12, "a JPEG of a JPEG"
        shown = _pixels(predicted_probabilities.overlay)
        assert (shown[:16, 48:, 0] > shown[:16, 48:, 2]).mean() > 0.9, "yellow, upper right"
        assert predicted_probabilities.where == "strongest in the upper right, strong over 25% of the image"


def test_of_another_manifest_nothing_is_shown(drawn_run: Callable[..., Path], tmp_path: Path) -> None:
    """A set that was built anew may show other images under the same names."""
    run = results.read(drawn_run(tmp_path))
    manifest = tmp_path / "manifests" / "tiny.csv"
    contract.write(manifest, contract.read(manifest).iloc[:-1], contract.read_card(manifest))
    rows, why = error_analysis.rows_of(run, error_analysis.manifest_of(run, tmp_path))
    assert rows is None
    assert "no longer the manifest" in why
    manifest.unlink()
    rows, why = error_analysis.rows_of(run, error_analysis.manifest_of(run, tmp_path))
    assert rows is None
    assert "not there any more" in why


@pytest.mark.parametrize(("row", "column", "words"), [(0, 0, "upper left"), (3, 3, "centre"), (6, 3, "lower middle")])
def test_evidence_in_words(row: int, column: int, words: str) -> None:
    """Where it is strongest, for those who can't see it."""
    heat = np.zeros((7, 7), np.float32)
    heat[row, column] = 1
    assert error_analysis.where(heat) == f"strongest in the {words}, strong over 2% of the image"
    assert error_analysis.where(0 * heat) == "nothing in the image speaks for it"
