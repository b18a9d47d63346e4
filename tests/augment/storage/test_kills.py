"""Builds whose processes are killed one by one, at moments from their start to their end, on a machine kept busy.

EVENSET_KILLS sets how many kills there are; 300 take a quarter of an hour.
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.killing import kill_one

KILLS = int(os.environ.get("EVENSET_KILLS", "20"))
RECIPE = "per_class: 200\naugment: [train, val]\nsize: 96\ntransforms: [{KerasAffine: {rotation_range: 9, zoom_range: 0.2}}]\n"
BUILD = ("build", "--recipe", "set.yaml", "--source", "source", "--workers", "2")


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("command", ["build", "repair"])
def test_no_kill_of_a_worker_ends_a_command(tmp_path: Path, make_source, start, everything, command: str) -> None:
    """Each time one or two processes that a build or a repair has started are killed: it finishes, with the same bytes."""
    make_source(tmp_path / "source", {"train/NORMAL": 14, "train/01": 14, "test/NORMAL": 4, "test/01": 4}, (600, 500))
    (tmp_path / "set.yaml").write_text(RECIPE)
    begun = time.monotonic()
    process = start(tmp_path, *BUILD)
    assert process.communicate(timeout=120)[1] == ""
    takes = time.monotonic() - begun
    expected = everything(tmp_path)
    words = BUILD if command == "build" else ("verify", "manifests/set.csv", "--repair", "--workers", "2")
    seed = random.randrange(2**32) if "EVENSET_KILLS" in os.environ else 21
    dice, kills = random.Random(seed), 0
    while kills < KILLS // 2:
        if command == "build":
            for place in ("data", "manifests"):
                shutil.rmtree(tmp_path / place)
        else:
            for path in dice.sample(sorted(expected), 150):
                if path.endswith(".jpg"):
                    (tmp_path / path).write_bytes(b"damaged")
        process = start(tmp_path, *words)
        done = [kill_one(process, dice, takes / 2) for _ in range(dice.randrange(1, 3))]
        _, complaint = process.communicate(timeout=120)
        assert (process.returncode, complaint) == (0, ""), f"seed {seed}, kills {kills}: {done}"
        assert everything(tmp_path) == expected, f"seed {seed}, kills {kills}: {done}"
        kills += sum(map(bool, done))
