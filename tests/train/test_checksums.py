"""A finished run's files by checksum."""

from collections.abc import Callable
from pathlib import Path

import pytest

from train import checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files and another folder, with their checksums."""
    (tmp_path / "logs").mkdir()
    for name in ("metrics.json", "predictions.csv", "curves.png", "logs/events"):
        (tmp_path / name).write_text(name)
    checksums.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda _: None, []),
        (lambda folder: (folder / "metrics.json").unlink(), ["metrics.json"]),
        (lambda folder: (folder / "predictions.csv").write_text("predictions.cs"), ["predictions.csv"]),
        (lambda folder: (folder / "predictions.csv").write_bytes(bytes(15)), ["predictions.csv"]),
        (lambda folder: (folder / "logs" / "events").unlink(), []),
        (lambda folder: (folder / "curves.png").unlink(), []),
        (lambda folder: (folder / "report.html").write_text("added later"), []),
        (lambda folder: (folder / "checksums.json").unlink(), []),
        (lambda folder: (folder / "checksums.json").write_text("{"), ["checksums.json"]),
        (lambda folder: (folder / "checksums.json").write_text("[]"), ["checksums.json"]),
    ],
)
def test_what_is_not_as_it_was_is_named(folder: Path, harm: Callable[[Path], object], expected: list[str]) -> None:
    """Gone, cut, or of the same size with other bytes; what isn't the run's own is left out."""
    harm(folder)
    assert checksums.altered(folder) == expected


def test_only_what_is_asked_for_is_looked_at(folder: Path) -> None:
    """By name; a file that never was there says nothing."""
    (folder / "metrics.json").unlink()
    assert checksums.altered(folder, "predictions.csv", "trained_on.csv") == []
    assert checksums.altered(folder, "predictions.csv", "metrics.json") == ["metrics.json"]
