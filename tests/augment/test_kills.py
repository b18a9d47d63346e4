"""Builds whose processes are killed one by one, at moments from their start to their end, on a machine kept busy.

EVENSET_KILLS sets how many kills there are; 300 take a quarter of an hour.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

KILLS = int(os.environ.get("EVENSET_KILLS", "20"))
RECIPE = "per_class: 200\nsize: 96\ntransforms: [{KerasAffine: {rotation_range: 9, zoom_range: 0.2}}]\n"
BUILD = ("build", "--recipe", "set.yaml", "--source", "source", "--workers", "2")
Process = subprocess.Popen[str]


@pytest.fixture
def busy() -> Iterator[None]:
    """Every core has something else to do, as far as it hasn't already."""
    idle = (os.cpu_count() or 1) - int(os.getloadavg()[0])
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(idle)]
    yield
    for burner in burners:
        burner.kill()
        burner.wait()


def processes_of(number: int) -> list[int]:
    """The processes that a process has started, and theirs: the one that workers are forked from, and the workers."""
    found = []
    for children in Path(f"/proc/{number}/task").glob("*/children"):
        try:
            listed = [int(child) for child in children.read_text().split()]
        except OSError:  # that thread has ended
            continue
        found += [below for child in listed for below in (child, *processes_of(child))]
    return found


def kill_one(process: Process, dice: random.Random, latest: float) -> str:
    """Kill one process that a command has started, at a moment up to `latest` seconds from now, and say which."""
    sort = dice.choice(["a time", "a process that appears", "a process that appears", "a time"])
    due = time.monotonic() + dice.uniform(0, latest)
    if sort == "a process that appears":
        wanted = dice.randrange(1, 4)  # the first is the one that workers are forked from
        while process.poll() is None and len(processes_of(process.pid)) < wanted:
            time.sleep(0.0005)
        due = time.monotonic() + dice.choice([0, 0.002, 0.03]) * dice.random()
    while time.monotonic() < due:
        time.sleep(0.0005)
    running = processes_of(process.pid)
    if not running:
        return ""
    victim = dice.choice(running)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return f"number {running.index(victim)} of {len(running)} after {sort}"


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
