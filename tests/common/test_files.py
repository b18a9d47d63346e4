"""What is written is there whole, or not at all."""

from pathlib import Path

import pytest

from common.files import write_atomically


def test_a_failed_replacement_keeps_the_old_text(tmp_path: Path) -> None:
    """What could not be written whole does not replace what was there."""
    path = tmp_path / "text"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
