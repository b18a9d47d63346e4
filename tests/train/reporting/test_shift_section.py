"""Shift and shortcuts in the report, and by the command."""

import html
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from train import checksums
from train import dataset as datasets
from train.data_checks import shift
from train.reporting import page

HOSTILE = ("<img src=x onerror=alert(1)>", "TRUE & 01")


@pytest.fixture
def run(drawn_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A run on a set whose classes have hostile names and different brightness, with its shift measured."""
    folder = drawn_run(tmp_path, classes=HOSTILE, train=30, val=30, test=30, size=32)
    dataset = datasets.read(tmp_path / "manifests" / "tiny.csv", tmp_path)
    found = shift.measure(
        dataset, lambda some: np.random.default_rng(0).normal(size=(len(some.rows), 3)), tmp_path, lambda *_: None
    )
    shift.write(folder, found)
    checksums.write(folder)
    return folder


def shown(run: Path, root: Path) -> str:
    """The page."""
    page.write([run], root, run / "report.html", lambda *_: (None, "no model"), lambda *_: None)
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_report_says_what_was_measured(run: Path, tmp_path: Path) -> None:
    """In sentences, tables and images of test; names are escaped."""
    text = shown(run, tmp_path)
    assert '<a href="#run1-shift">Shift</a>' in text
    assert "<img src=x" not in text
    words = html.unescape(text)
    assert f"Test images of {HOSTILE[0]} least like train" in words
    assert "In the set's images the brightness alone gives" in words
    assert "The source files were not measured: 0 of 180" in words
    section = text.split('id="run1-shift"')[1].split('id="run1-curves"')[0]
    assert section.count("data:image/jpeg") == 2 * shift.UNLIKE


def test_an_image_that_is_another_now_is_not_shown(run: Path, tmp_path: Path) -> None:
    """Only its name."""
    found = shift.read(run)
    assert found
    path = tmp_path / found.classes[HOSTILE[0]].unlike[0].path
    path.write_bytes(next(path.parent.glob("2*.jpg")).read_bytes() if path.name != "2.jpg" else b"")
    section = shown(run, tmp_path).split('id="run1-shift"')[1].split('id="run1-curves"')[0]
    assert section.count("data:image/jpeg") == 2 * shift.UNLIKE - 1
    assert section.count(path.name) > 0


def test_the_command_says_the_same(run: Path, environment: dict[str, str]) -> None:
    """As text and as JSON; a run of an older version is named."""
    command = [sys.executable, "-m", "train", "shift", str(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "What gives the class away?" in done.stdout
    assert "brightness" in done.stdout
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["classes"][HOSTILE[1]]["test"] == 30
    (run / "shift.json").unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "run `python -m train fit` again" in done.stderr
