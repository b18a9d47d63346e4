"""The stages of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from train import dataset as datasets
from train import run
from train.data_checks import shift
from train.features import backbone
from train.features.engine import PLAIN, Engine
from train.features.forward import NetworkCache


@pytest.mark.slow
def test_shift_is_measured_in_float32_whatever_trains(image_set: Callable[..., Path], tmp_path: Path) -> None:
    """Train's activations are of the engine's precision, test's of float32: a regression would tell the one from the other."""
    dataset = datasets.read(image_set(train=25, val=8, test=25, size=64), tmp_path)
    part = backbone.cut(backbone.load_backbone("demo", "random", dataset.size, 0), 5)
    found = []
    for engine in (PLAIN, Engine("tensorflow", "bfloat16")):
        folder = tmp_path / engine.precision
        folder.mkdir()
        run._compare_data(dataset, NetworkCache(part, "w", folder), engine, tmp_path, folder, None)
        found.append(shift.read(folder))
    assert found[0] == found[1]
    assert found[0] is not None
    assert all(of_class.network.value is not None for of_class in found[0].classes.values())
