"""What the choice of an engine does to a run's predictions on real X-rays."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from train.cli import main
from train.features import backbone
from train.features.engine import candidates
from train.features.forward import NetworkCache


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_two_threads_may_run_the_frozen_part_at_once(name: str, tmp_path: Path) -> None:
    """Batches that two threads ask for at the same time come out as they do one after the other."""
    if name == "openvino":
        pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    part = backbone.cut(backbone.load_backbone("resnet50v2", "random", (64, 64), 0), 5)
    run = NetworkCache(part, "w", tmp_path).compiled(candidates(name)[-1])
    rng = np.random.default_rng(0)
    batches = [rng.uniform(0, 255, (32, 64, 64, 3)).astype(np.float32) for _ in range(8)]
    expected = [run(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(run, batches))
    for outputs, alone in zip(got, expected, strict=True):
        for one, other in zip(outputs, alone, strict=True):
            np.testing.assert_array_equal(one, other)


def test_openvino_tells_nobody_that_it_is_used(tmp_path: Path, environment: dict[str, str]) -> None:
    """Its package for that keeps an identifier in the user's home, and sends what is done: it is not imported."""
    pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    code = """
import sys
from pathlib import Path
from train.features import backbone
from train.features.engine import candidates
from train.features.forward import NetworkCache
part = backbone.cut(backbone.load_backbone("resnet50v2", "random", (64, 64), 0), 5)
NetworkCache(part, "w", Path()).compiled(candidates("openvino")[0])
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry.")))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=environment | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not (tmp_path / "intel").exists()


@pytest.mark.slow
def test_engines_come_to_the_same_predictions(xrays_set: Callable[..., Path], weights: Path, tmp_path: Path) -> None:
    """After both phases, test probabilities of OpenVINO and TensorFlow differ by 0.02 at most, and by 0.005 on average.

    Nearly all decisions are the same. The README states what came out of it once.
    """
    pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    manifest = xrays_set(train=100, val=30, test=100)
    tables = []
    for engine in ("tensorflow", "openvino"):
        run = tmp_path / "runs" / engine
        rates = ["--learning-rate", "1e-2", "--fine-tune-learning-rate", "1e-4"]
        words = ["fit", str(manifest), "--root", str(tmp_path), "--run", str(run), "--weights", str(weights)]
        result = CliRunner().invoke(
            main, [*words, "--engine", engine, "--epochs", "5", "--fine-tune-epochs", "5", *rates]
        )
        assert result.exit_code == 0, result.output
        tables.append(pd.read_csv(run / "predictions.csv").query("split == 'test'"))
    apart = np.abs(tables[0]["p(PNEUMONIA)"].to_numpy() - tables[1]["p(PNEUMONIA)"].to_numpy())
    same = (tables[0]["predicted (0.5)"] == tables[1]["predicted (0.5)"]).mean()
    assert apart.max() < 0.02
    assert apart.mean() < 0.005
    assert same > 0.98
    assert np.ptp(tables[0]["p(PNEUMONIA)"]) > 0.5, "the predictions must mean something, else this shows nothing"
