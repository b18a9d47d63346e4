"""`python -m train` as a user meets it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from train import dataset as datasets
from train.cli import main

ROOT = Path(__file__).parents[2]


def fit(manifest: Path, *options: str) -> Result:
    """Run `fit` on a small set with random weights, one epoch a phase."""
    root = str(manifest.parent.parent)
    short = ["--weights", "random", "--epochs", "1", "--fine-tune-epochs", "1", "--batch-size", "8", "--root", root]
    return CliRunner().invoke(main, ["fit", str(manifest), *short, *options])


@pytest.mark.slow
def test_a_run_leaves_all_that_is_promised(image_set: Callable[..., Path]) -> None:
    """Settings, history, metrics, predictions, model, logs and figures are there and agree with each other."""
    manifest = image_set()
    root = manifest.parent.parent
    result = fit(manifest)
    assert result.exit_code == 0, result.output
    run = root / "runs" / "tiny"
    assert {"curves.png", "augmentation.png", "tensorboard"} <= {path.name for path in run.iterdir()}
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    history = pd.read_csv(run / "history.csv")
    assert history["phase"].tolist() == ["frozen", "fine-tuned"]
    assert history["epoch"].tolist() == [1, 2]
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["weights"], settings["seed"], settings["fine_tune_layers"]) == ("random", 0, 5)

    predictions = pd.read_csv(run / "predictions.csv")
    told = json.loads((run / "metrics.json").read_text())
    for phase in ("frozen", "fine-tuned"):
        of_test = predictions[(predictions["phase"] == phase) & (predictions["split"] == "test")]
        assert told[phase]["test"]["accuracy"] == pytest.approx((of_test["label"] == of_test["predicted"]).mean())

    model = keras.saving.load_model(run / "model.keras", safe_mode=True)
    tuned = predictions[predictions["phase"] == "fine-tuned"]
    images = np.concatenate([b.numpy() for b in datasets.images([root / p for p in tuned["path"]], (64, 64), 8)])
    np.testing.assert_allclose(model(images)[:, 0], tuned["p(class1)"], atol=1e-4)


@pytest.mark.slow
def test_a_run_again_is_reused_and_another_moves_it_aside(image_set: Callable[..., Path]) -> None:
    """The same settings say so and change nothing; others keep the old run under NAME.1; same seed, same numbers."""
    manifest = image_set()
    runs = manifest.parent.parent / "runs"
    assert fit(manifest).exit_code == 0
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    again = fit(manifest)
    assert "finished already" in again.output
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before

    other = fit(manifest, "--seed", "1")
    assert other.exit_code == 0, other.output
    assert sorted(path.name for path in runs.iterdir()) == ["tiny", "tiny.1"]
    assert (runs / "tiny.1" / "history.csv").read_bytes() == before[runs / "tiny" / "history.csv"]
    assert (runs / "tiny" / "history.csv").read_bytes() != before[runs / "tiny" / "history.csv"]
    first = fit(manifest, "--run", str(runs / "copy"))
    assert first.exit_code == 0, first.output
    assert (runs / "copy" / "predictions.csv").read_bytes() == before[runs / "tiny" / "predictions.csv"]

    compared = CliRunner().invoke(main, ["compare", str(runs / "tiny"), str(runs / "tiny.1")])
    assert compared.exit_code == 0, compared.output
    accuracy = json.loads((runs / "tiny.1" / "metrics.json").read_text())["frozen"]["test"]["accuracy"]
    assert f"{100 * accuracy:.2f}" in compared.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fit", "nowhere.csv"], "nowhere.csv: no such manifest"),
        (["fit", "{manifest}", "--root", "{root}", "--weights", "nowhere.h5"], "--weights nowhere.h5: no such file"),
        (["fit", "{manifest}", "--root", "{root}", "--weights", "random", "--fine-tune-layers", "999"], "has 189"),
        (["compare", "{root}"], "holds no finished run"),
    ],
)
def test_a_mistake_is_one_line(image_set: Callable[..., Path], arguments: list[str], told: str) -> None:
    """Exit code 2, a last line that names value and fix, and no run folder."""
    manifest = image_set()
    root = manifest.parent.parent
    result = CliRunner().invoke(main, [word.format(manifest=manifest, root=root) for word in arguments])
    assert result.exit_code == 2
    assert told in result.output.splitlines()[-1]
    assert not (root / "runs").exists()


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_help_has_an_example(command: str) -> None:
    """Every command shows how it is called."""
    result = CliRunner().invoke(main, [command, "--help"])
    assert "Example:\n" in result.output
    assert f"python -m train {command}" in result.output


def test_importing_the_command_line_does_not_load_tensorflow() -> None:
    """`--help` answers in a blink."""
    code = "import sys, train.cli; print([m for m in ('tensorflow', 'keras', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
