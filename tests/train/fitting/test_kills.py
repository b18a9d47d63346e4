"""Training that is killed at moments from its start to its end, on a machine kept busy.

EVENSET_KILLS sets how many kills there are; 60 take three quarters of an hour.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.killing import Process, kill_one

KILLS = int(os.environ.get("EVENSET_KILLS", "4"))
_MOST = 300  # seconds, in which a run of some 20 is over on any machine
_FILES = ("settings.json", "history.csv", "metrics.json", "predictions.csv")


def started(manifest: Path, run: str, cache: str, environment: dict[str, str], engine: str) -> Process:
    """A process that trains on a small set."""
    root = manifest.parent.parent
    options = ["--weights", "random", "--epochs", "3", "--fine-tune-epochs", "3", "--batch-size", "8"]
    options += ["--engine", engine, "--cache", str(root / cache), "--run", str(root / run), "--root", str(root)]
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "train", "fit", str(manifest), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def over(process: Process, what: str) -> str:
    """What a process printed by its end; one that hangs says where."""
    try:
        return process.communicate(timeout=_MOST)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # upon which it prints the stack of each of its threads
        pytest.fail(f"{what}: hangs\n{process.communicate()[0]}")


def differing(run: Path, other: Path) -> list[str]:
    """The files of two runs that differ."""
    return [name for name in _FILES if (run / name).read_bytes() != (other / name).read_bytes()]


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
def test_no_kill_ends_in_anything_but_a_finished_run(
    image_set: Callable[..., Path], environment: dict[str, str]
) -> None:
    """Killed in any phase and with either engine: the next try ends as an unharmed run."""
    pytest.importorskip("openvino", reason="python -m pip install -r requirements-openvino.txt")
    manifest = image_set(train=24, val=12, test=6)
    root = manifest.parent.parent
    takes = {}
    for engine in ("tensorflow", "openvino"):
        begun = time.monotonic()
        process = started(manifest, f"runs/{engine}", f"cache-{engine}", environment, engine)
        printed = over(process, engine)
        assert process.returncode == 0, printed
        takes[engine] = time.monotonic() - begun
    seed = random.randrange(2**32) if "EVENSET_KILLS" in os.environ else 21
    dice, kills = random.Random(seed), 0
    while kills < KILLS:
        engine = ("tensorflow", "openvino")[kills % 2]
        for place in ("runs/killed", "runs/.killed.partial", "cache-killed"):
            shutil.rmtree(root / place, ignore_errors=True)
        if dice.random() < 0.5:  # the activations are there already
            shutil.copytree(root / f"cache-{engine}", root / "cache-killed")
        (root / "cache-killed").mkdir(exist_ok=True)
        for timings in (root / f"cache-{engine}").glob("timings-*.json"):  # measured anew, they might choose another
            shutil.copy(timings, root / "cache-killed")
        what = f"seed {seed}, kill {kills}, {engine}"
        process = started(manifest, "runs/killed", "cache-killed", environment, engine)
        done = kill_one(process, dice, takes[engine], main=True)  # it starts no others
        printed = over(process, f"{what}: {done}")
        kills += bool(done)
        shown = f"{what}: {done or 'not killed'}"
        print(shown, flush=True)  # noqa: T201  # with -s, a run that is stopped has shown something
        if process.returncode:
            assert "Traceback" not in printed, f"{what}: {done}\n{printed}"
            if (
                root / "runs" / "killed"
            ).exists():  # killed while it was leaving: a run has its name when it is finished
                assert differing(root / "runs" / engine, root / "runs" / "killed") == [], f"{what}: {done}"
            process = started(manifest, "runs/killed", "cache-killed", environment, engine)
            printed = over(process, f"{what}: {done}, the second try")
            assert process.returncode == 0, f"{what}: {done}\n{printed}"
        assert differing(root / "runs" / engine, root / "runs" / "killed") == [], f"{what}: {done}"
        assert not list((root / "runs").glob(".killed.partial"))
