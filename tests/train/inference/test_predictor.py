"""Reading a finished run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from train.inference import predictor

NOISE = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(threshold={"value": 0.25, "chosen_by": "val"})


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run to damage."""
    return shutil.copytree(run, tmp_path / "run")


def test_a_run_is_read_with_all_that_its_model_needs(run: Path) -> None:
    """Classes, size and the last phase's threshold; the two probabilities of an image sum to one."""
    read = predictor.load(run)
    assert (read.classes, read.size, read.threshold) == (("NORMAL", "PNEUMONIA"), (64, 64), 0.25)
    probabilities = read.probabilities(NOISE)
    assert probabilities.shape == (3, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(probabilities[:, 1:], read.model(NOISE), atol=1e-6)


def test_the_second_class_is_predicted_from_the_threshold_on(run: Path) -> None:
    """On the threshold it is the second, below it the first, whichever is more probable."""
    given = np.array([[0.76, 0.24], [0.75, 0.25], [0.2, 0.8]], np.float32)
    assert predictor.load(run).predicted(given).tolist() == [0, 1, 1]


def test_a_run_of_before_there_were_thresholds_has_one_half(copy: Path) -> None:
    """No threshold, or none chosen: 0.5."""
    for metrics in ({}, {"frozen": {"test": {}}}, {"frozen": {"threshold": None}}):
        (copy / "metrics.json").write_text(json.dumps(metrics))
        assert predictor.load(copy).threshold == 0.5


def test_of_more_classes_the_most_probable_is_predicted(make_run: Callable[..., Path]) -> None:
    """There is no threshold, and each class has an output of its own; width and height aren't mixed up."""
    read = predictor.load(make_run(classes=("a", "b", "c"), size=(64, 32)))
    assert (read.size, read.threshold) == ((64, 32), None)
    assert read.probabilities(NOISE[:, :32]).shape == (3, 3)
    assert read.predicted(np.array([[0.3, 0.4, 0.3]], np.float32)).tolist() == [1]


def foreign(path: Path, *layers: keras.layers.Layer) -> None:
    keras.Sequential([keras.Input((64, 64, 3)), *layers]).save(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "holds no finished run"),
        (lambda run: (run / "metrics.json").write_text("{"), "holds no finished run"),
        (lambda run: (run / "settings.json").write_text("[]"), "got a JSON list"),
        (lambda run: (run / "settings.json").write_text('{"classes": ["a"]}'), "expected at least two names"),
        (lambda run: (run / "settings.json").write_text('{"classes": ["a", "a"]}'), "expected at least two names"),
        (lambda run: (run / "settings.json").write_text('{"classes": [["a"], ["b"]]}'), "expected at least two names"),
        (lambda run: (run / "settings.json").write_text('{"classes": ["a", "b", "c"]}'), "with output (None, 3)"),
        (lambda run: (run / "metrics.json").write_text('{"frozen": {"threshold": {"value": -1}}}'), "threshold -1"),
        (lambda run: (run / "metrics.json").write_text('{"a": {"threshold": {"value": NaN}}}'), "threshold nan"),
        (lambda run: (run / "model.keras").unlink(), "no such file"),
        (lambda run: (run / "model.keras").write_bytes(b"PK"), "no model that can be loaded"),
        (lambda run: foreign(run / "model.keras", keras.layers.Flatten()), "expected one that `python -m train fit`"),
        (lambda run: foreign(run / "model.keras", keras.layers.Lambda(lambda x: x)), "no model that can be loaded"),
    ],
)
def test_what_is_no_run_is_said_in_one_line(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    """A folder or file that is missing, damaged, or of another program, with code in it too, is named with what is wrong."""
    damage(copy)
    with pytest.raises(predictor.PredictorError) as caught:
        predictor.load(copy)
    assert message in str(caught.value)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
