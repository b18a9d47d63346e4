"""Evenset installed by pip, away from its folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_pip_installs_a_console_script(tmp_path: Path) -> None:
    """`evenset` builds the sample's set from what was installed: its modules, recipes, templates and the demo's weights."""
    place, copy = tmp_path / "site", tmp_path / "evenset"  # pip leaves a build folder where it builds
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "data", "runs", "tests", "build", "*.egg-info"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, copy]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=300)
    environment = {"PYTHONPATH": str(place), "PATH": "/usr/bin:/bin"}

    def evenset(*words: str) -> str:
        command = [sys.executable, place / "bin" / "evenset", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert evenset("--version") == "evenset, version 0.1.0\n"
    assert "evenset train fit manifests/even.csv" in evenset("--help")
    evenset("augment", "sample", "source")
    evenset("augment", "build", "--recipe", "sample", "--source", "source", "--workers", "1")
    assert "gallery" in evenset("augment", "gallery", "manifests/sample.csv")
    assert (tmp_path / "manifests" / "sample.csv").is_file()
    assert str(place) in evenset_module(environment)
    assert (place / "train" / "demo" / "demo.weights.h5").is_file()


def evenset_module(environment: dict[str, str]) -> str:
    """Where the module that ran comes from."""
    code = "import augment; print(augment.__file__)"
    return subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True
    ).stdout
