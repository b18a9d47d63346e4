"""Fixtures for the tests of `augment`: its command line, in this process and in one of its own, and what a set holds."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from augment.cli import main

Call = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]
Everything = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="session")
def call() -> Call:
    """A function (words) -> click's result that calls the command line in this process."""

    def invoke(*words: str | Path) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], prog_name="python -m augment")

    return invoke


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """A function (folder, words) -> process that starts the command line as a user does; none outlives its test."""
    started = []

    def popen(
        folder: Path, *words: str | Path, command: tuple[str, ...] = ("-m", "augment")
    ) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, *command, *map(str, words)],
            cwd=folder,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,  # as a terminal does, so that a signal can be sent to all of its processes
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture
def root(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, free to damage, of the root that the module's own `built` made, as working directory."""
    shutil.copytree(built, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture(scope="session")
def everything() -> Everything:
    """A function root -> {path: bytes} of all files in `data` and `manifests` but the locks, which stay."""

    def read(root: Path) -> dict[str, bytes]:
        files = [path for place in ("data", "manifests") for path in (root / place).rglob("*")]
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in files
            if path.is_file() and path.suffix != ".lock"
        }

    return read
