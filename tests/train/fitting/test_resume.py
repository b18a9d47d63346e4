"""Killed anywhere, `fit` run again goes on where it was, and ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

EPOCHS = 6


def started(manifest: Path, run: str, environment: dict[str, str], cache: str, seed: int = 0) -> subprocess.Popen[str]:
    """A process that trains on a small set."""
    root = manifest.parent.parent
    options = ["--weights", "random", "--epochs", str(EPOCHS), "--fine-tune-epochs", str(EPOCHS), "--batch-size", "8"]
    options += [
        "--engine",
        "tensorflow",
        "--seed",
        str(seed),
        "--learning-rate",
        "0.05",
        "--fine-tune-learning-rate",
        "0.001",
        "--cache",
        str(root / cache),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "train", "fit", str(manifest), "--run", str(root / run), "--root", str(root), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it printed, once it is done and all went well."""
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return printed


def killed_in_epoch(process: subprocess.Popen[str], phase: str, epoch: int) -> None:
    """Kill a run as soon as it has printed an epoch of a phase."""
    assert process.stdout
    for line in process.stdout:
        if line.split()[:3] == [phase, "epoch", str(epoch)]:
            break
    else:
        pytest.fail(f"no epoch {epoch} of the phase {phase}")
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    image_set: Callable[..., Path], environment: dict[str, str]
) -> None:
    """Killed in extraction, in phase 1 and in phase 2: history, metrics, predictions and weights are the same."""
    manifest = image_set(train=24, val=12, test=6)
    root = manifest.parent.parent
    finished(started(manifest, "runs/whole", environment, "cache-whole"))

    process = started(manifest, "runs/killed", environment, "cache-killed")
    while not any(path.stat().st_size for path in (root / "cache-killed").glob("*/index")):
        assert process.poll() is None
        os.sched_yield()
    process.kill()
    process.wait()
    killed_in_epoch(started(manifest, "runs/killed", environment, "cache-killed"), "frozen", 2)
    killed_in_epoch(started(manifest, "runs/killed", environment, "cache-killed"), "fine-tuned", EPOCHS + 2)
    assert not (root / "runs" / "killed").exists(), "no run under its name before it is finished"
    printed = finished(started(manifest, "runs/killed", environment, "cache-killed"))
    assert "0 images computed" in printed

    whole, killed = root / "runs" / "whole", root / "runs" / "killed"
    for name in ("settings.json", "history.csv", "metrics.json", "predictions.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    weights = [keras.saving.load_model(run / "model.keras").get_weights() for run in (whole, killed)]
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))
    assert sorted(path.name for path in killed.iterdir()) == sorted(path.name for path in whole.iterdir())


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_other_settings_start_over(
    image_set: Callable[..., Path], environment: dict[str, str]
) -> None:
    """An interrupted run leaves checkpoints; one with other settings sets them aside, and they are taken up again."""
    manifest = image_set()
    root = manifest.parent.parent
    process = started(manifest, "runs/tiny", environment, "cache")
    assert process.stdout
    while not process.stdout.readline().lstrip().startswith("frozen"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode == 130
    assert "Run it again and it goes on" in printed
    partial = root / "runs" / ".tiny.partial"
    (partial / "checkpoints").mkdir(exist_ok=True)  # it may not have come to the first one
    (partial / "checkpoints" / "left").touch()
    printed = finished(started(manifest, "runs/tiny", environment, "cache", seed=1))
    aside = root / "runs" / "tiny.unfinished.1"
    assert f"kept at {aside}" in printed
    assert (aside / "checkpoints" / "left").exists()
    assert not partial.exists()
    assert not (root / "runs" / "tiny" / "checkpoints").exists()

    printed = finished(started(manifest, "runs/tiny", environment, "cache"))
    assert f"Going on from {aside}" in printed
    assert f"What was at {root / 'runs' / 'tiny'} is now at {root / 'runs' / 'tiny.1'}" in printed
    assert sorted(path.name for path in (root / "runs").glob("[!.]*")) == ["tiny", "tiny.1"]
